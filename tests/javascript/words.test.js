import { languages } from "../../js/languages.js";
import {
  speak,
  word,
  wordsOfCovered,
  wordsOfHeat,
  wordsOfLayers,
  wordsOfPreset,
  wordsOfPresetAtLength,
  wordsOfReport,
  wordsOfReportAtLength,
  wordsOfScale,
  zoneOf,
} from "../../js/words.js";

const FLUX = {
  family: "Flux",
  block_count: 57,
  block_names: [
    ...Array.from({ length: 19 }, (_, index) => `double ${index}`),
    ...Array.from({ length: 38 }, (_, index) => `single ${index}`),
  ],
  peak_ratios: { 0: 1.234, 12: 143.21 },
  channels: { 12: [1446, 154], 13: [154] },
  steps: 20,
  steps_fired: 15,
  steps_reused: 0,
  relative_strength: 0.03149,
  plan: "together",
  fingerprint: "ab12",
  warnings: [],
};

test("a scale of 0 is off", () => {
  expect(wordsOfScale(0)).toBe("off");
  expect(wordsOfScale(0.25)).toBe("0.25");
  expect(wordsOfScale(20)).toBe("20");
});

test("layers are fractions until a run has shown the model", () => {
  expect(wordsOfLayers({ start: 0.5, end: 0.5 }, undefined)).toBe("0.5 of the depth");
  expect(wordsOfLayers({ start: 0.25, end: 1 }, undefined)).toBe("0.25–1 of the depth");
});

test("then they are its blocks, each kind told apart", () => {
  expect(wordsOfLayers({ start: 0.22, end: 0.22 }, FLUX)).toBe("block 12 of 57 (double 12)");
  expect(wordsOfLayers({ start: 0.3, end: 0.36 }, FLUX)).toBe("blocks 17–20 of 57 (double 17 – single 1)");
  expect(wordsOfLayers({ start: 1, end: 1 }, FLUX)).toBe("block 56 of 57 (single 37)");
});

test("the heat has a number", () => {
  expect(wordsOfHeat(12, FLUX)).toBe("block 12 (double 12): its largest channel is 143 times the median");
  expect(wordsOfHeat(20, FLUX)).toBe("block 20 (single 1): not measured");
});

test("what happened, in one line and at length", () => {
  expect(wordsOfReport(FLUX)).toBe("strength 0.031 (weak) · channels 154, 1446 · 15/20 steps");
  expect(wordsOfReport({ ...FLUX, channels: { 12: [] } })).toContain(" · no channel · ");
  expect(wordsOfReport({ ...FLUX, channels: { 12: [5, 4, 3, 2, 1] } })).toContain(" · channels 1, 2 … · ");
  expect(wordsOfReport({ ...FLUX, channels: { 12: [5] } })).toContain(" · channel 5 · ");
  expect(wordsOfReport({ ...FLUX, steps_fired: 5, steps_reused: 10 })).toContain(" · 15/20 steps, 5 computed");
  const long = wordsOfReportAtLength({ ...FLUX, channels: { 12: [154, 1446], 13: [] }, plan: "in turn" });
  expect(long).toContain("block 12: 154, 1446\n  block 13: none");
  expect(long).toContain("a forward of their own");
});

test("a strength has a zone", () => {
  expect([0, 0.049, 0.05, 0.25, 0.26].map(zoneOf)).toEqual(["weak", "weak", "usual", "usual", "strong"]);
});

test("the page's language", () => {
  for (const [locale, off] of [
    ["zh-TW", "关闭"],
    ["ja", "オフ"],
    ["fr-CA", "désactivé"],
    ["de", "off"],
    [undefined, "off"],
  ]) {
    speak(locale);
    expect(word("off")).toBe(off);
  }
  speak("ja");
  expect(wordsOfReport(FLUX)).toBe("強度 0.031（弱い） · チャンネル 154, 1446 · 15/20 ステップ");
  speak("en");
});

test("where words are", () => {
  const covered = { bear: 0.123, "brown grass": 0.3 };
  expect(wordsOfCovered({ ...FLUX, covered })).toBe("where: bear 12 %, brown grass 30 %");
  expect(wordsOfCovered({ ...FLUX, covered: {} })).toBe("");
  expect(wordsOfCovered(FLUX)).toBe(""); // of a server of an older version
  expect(wordsOfReportAtLength({ ...FLUX, covered, plan: "together" })).toContain("where: bear 12 %");
});

test.each(Object.keys(languages))("%s has every word", (locale) => {
  const { en } = languages;
  const lacking = (all, some) => Object.keys(all).filter((name) => !(name in some));
  expect(lacking(en, languages[locale])).toEqual([]);
  expect(lacking(languages[locale], en)).toEqual([]);
});
