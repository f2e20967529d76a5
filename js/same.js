/** Whether two objects hold the same: values by identity, Sets and plain objects by what is in them. It is asked at every
 * animation frame, so nothing is written down to be compared. */
export function same(one, other) {
  if (Object.is(one, other)) return true;
  if (!(one instanceof Object) || !(other instanceof Object)) return false;
  if (one instanceof Set) {
    return other instanceof Set && one.size === other.size && [...one].every((item) => other.has(item));
  }
  const names = Object.keys(one);
  return names.length === Object.keys(other).length && names.every((name) => same(one[name], other[name]));
}
