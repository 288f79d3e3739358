/**
 * Loads a checkpoint in layers, and saves the next version on top: DIRECTORY VERSION COMPRESSION.
 */
import { MemoryFile, type SaveOptions } from "../../../src/index.ts";
import { saveLayer } from "./layered.ts";

const [directory, version, compression] = process.argv.slice(2) as [string, string, string];
using file = await MemoryFile.loadFrom(directory);
await saveLayer(file, directory, Number(version), { compression } as SaveOptions);
console.log("saved");
