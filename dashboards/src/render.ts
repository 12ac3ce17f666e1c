// Writes what is made here, or checks that it has been written.
//
//     render [--check]

import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

import { DASHBOARDS, RULES } from "./all.js";
import { build } from "./dashboard.js";
import { render } from "./rules.js";

/** The package's directory. */
export const ROOT = join(dirname(fileURLToPath(import.meta.url)), "../..");

/** Every rendered file, by its path below the package. */
export function files(): Map<string, string> {
  const files = new Map<string, string>();
  for (const file of RULES) files.set(`rules/${file.name}.yaml`, render(file));
  for (const dashboard of DASHBOARDS) {
    files.set(`grafana/${dashboard.name}.json`, JSON.stringify(build(dashboard, DASHBOARDS), null, 2) + "\n");
  }
  return files;
}

/** The paths of files that are not as they would be written now. */
export function drift(): string[] {
  const current = (path: string) => {
    try {
      return readFileSync(join(ROOT, path), "utf8");
    } catch {
      return undefined;
    }
  };
  return [...files()].filter(([path, text]) => current(path) !== text).map(([path]) => path);
}

function main(): void {
  const outdated = drift();
  if (process.argv.includes("--check")) {
    for (const path of outdated) console.error(`${path} is not what the source says: npm run render`);
    process.exitCode = outdated.length === 0 ? 0 : 1;
    return;
  }
  for (const [path, text] of files()) {
    mkdirSync(dirname(join(ROOT, path)), { recursive: true });
    writeFileSync(join(ROOT, path), text);
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) main();
