// Russian counts: one for 1 and 21, few for 2 to 4, many for 0, 5 to 20, and other for fractions.
const counted = new Intl.PluralRules("ru");
const timesWord = (number) => (["one", "many"].includes(counted.select(Number(number))) ? "раз" : "раза");
const ofSteps = (number) => (counted.select(number) === "one" ? "шага" : "шагов");

export default {
  off: "выкл.",
  bypassed: "обход",
  muted: "отключён",
  fromLink: (title) => (title ? `из «${title}»` : "по связи"),
  missing: "Отключённый узел и гид в режиме обхода ничего не передают следующему узлу. Вместо этого выключите enabled.",
  detail: "детализация",
  curveLabel: "детализация по управляемым шагам",
  hint: "Запустите один раз, чтобы увидеть здесь блоки этой модели.",
  scaleLabel: "Масштаб DG",
  firstLayer: "Первый слой",
  lastLayer: "Последний слой",
  ofDepth: (fraction) => `${fraction} глубины`,
  block: (number, count, name) => `блок ${number} из ${count} (${name})`,
  blocks: (first, last, count, from, to) => `блоки ${first}–${last} из ${count} (${from} – ${to})`,
  stated: (number, name, what) => `блок ${number} (${name}): ${what}`,
  notMeasured: "не измерен",
  standsOut: (times) => `его наибольший канал в ${times} ${timesWord(times)} больше медианного`,
  strength: (value, zone) => `сила ${value} (${zone})`,
  ofNegative: (percent) => `в отрицательном, сохранено ${percent} %`,
  weak: "малая",
  usual: "обычная",
  strong: "большая",
  channels: (list, count) => (count === 0 ? "нет каналов" : `${count === 1 ? "канал" : "каналы"} ${list}`),
  steps: (guided, all) => `${guided}/${all} ${ofSteps(all)}`,
  computed: (steps, computed) => `${steps}, вычислено ${computed}`,
  lastRun: (words) => `последний запуск: ${words}`,
  where: (list) => `где: ${list}`,
  calibrated: (block, scale, cfg) => `лучшее при cfg ${cfg}: блок ${block}, ${scale}`,
  keepsLayout: (block, scale, cfg) => `без оценки: блок ${block}, композиция цела до ${scale} (cfg ${cfg})`,
  from: (percent) => ` с ${percent} %`,
  calibratedWithout: (verdict) => `калибровка: ${verdict}`,
  use: "применить",
  divider: "Разделитель между изображениями",
  compareHint:
    "Стрелки: разделитель. Page Up и Page Down: другие изображения. " +
    "Двойной щелчок или Enter: полный размер или по размеру узла.",
  previousPicture: "Предыдущее изображение",
  nextPicture: "Следующее изображение",
  ofAll: (number, count) => `${number} из ${count}`,
  ofAnother: "пресет от другой модели",
  ofAnotherAtLength: (theirs, ours) =>
    `Он измерен на весах ${theirs}, а у этой модели ${ours}. Откалибруйте эту модель.`,
  verdicts: {
    "does not help": "не помогает",
    "cannot be told": "определить нельзя",
    "breaks the layout": "нарушает композицию",
    "nothing to judge": "оценивать нечего",
  },
};
