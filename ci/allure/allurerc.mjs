// How the HTML report is made. harness/report/html.py runs it; by hand, from this folder:
//   npm ci && ALLURE_RESULTS=../../build/allure-results npx allure generate --config allurerc.mjs ../../build/allure-results
//
// Nothing about a run is written here: categories and environment come from the files that the run left among its
// results (harness/report/allure.py), so that there is one source for both.
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { env } from "node:process";

const results = env.ALLURE_RESULTS ?? "../../build/allure-results";
const read = (name) => (existsSync(join(results, name)) ? readFileSync(join(results, name), "utf8") : "");

export default {
  name: env.REPORT_NAME ?? "SR-IOV endpoint",
  output: env.REPORT_OUTPUT ?? "../../build/report",
  historyPath: env.REPORT_HISTORY ?? "../../build/allure-history.jsonl",
  historyLimit: 20, // the page holds 1.4 kB a test and run of it
  // The classic list also serves here: first match wins, and rows of one name are one category.
  categories: JSON.parse(read("categories.json") || "[]").map((row) => ({
    name: row.name,
    matchedStatuses: row.matchedStatuses,
    messageRegex: row.messageRegex,
    traceRegex: row.traceRegex,
    expand: row.matchedStatuses?.[0] !== "skipped", // the reasons of what failed are seen without a click
  })),
  hideLabels: ["framework", "language", "package", "parentSuite", "thread"],
  plugins: {
    awesome: {
      options: {
        singleFile: true,
        reportLanguage: "en",
        groupBy: ["suite"],
        defaultSortBy: "status,asc", // what failed comes first
      },
    },
  },
};
