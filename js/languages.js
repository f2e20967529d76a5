/** What stands on the page, in its language: one file each in languages/; long tooltips and the server's warnings are
 * English. Knows neither the page nor the DOM. */

import en from "./languages/en.js";
import es from "./languages/es.js";
import fr from "./languages/fr.js";
import ja from "./languages/ja.js";
import ko from "./languages/ko.js";
import ru from "./languages/ru.js";
import zh from "./languages/zh.js";

export const languages = { en, es, fr, ja, ko, ru, zh };

/** The words of a locale such as "ja" or "zh-TW"; English where there are none. */
export const wordsIn = (locale) => languages[String(locale).split("-")[0]] ?? en;
