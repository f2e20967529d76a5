export default {
  cacheDir: "../../.host/javascript/cache",
  test: { globals: true },
};
