/**
 * A program that saves to S3 repeatedly until it is killed. All pages of a checkpoint have one
 * number. It prints a line when it begins.
 */
import { MemoryFile, PAGE_SIZE } from "../../../src/index.ts";

const [, , where, endpoint, accessKeyId, secretAccessKey] = process.argv as string[];
const s3 = { endpoint: endpoint!, accessKeyId: accessKeyId!, secretAccessKey: secretAccessKey! };
const PAGES = 3000;

const file = MemoryFile.create();
const range = file.allocate(PAGES * PAGE_SIZE);
const words = file.view(range, Uint32Array);
console.log("saving");
for (;;) {
  const stamp = (Math.random() * 2 ** 32) >>> 0;
  for (let i = 0; i < words.length; i++) words[i] = Math.imul(i, 2_654_435_761) ^ stamp;
  try {
    await file.saveTo(where!, { s3, compression: "none", incremental: Math.random() < 0.3 });
  } catch (error) {
    // The program that was killed before may have published after this one began.
    if ((error as { code?: unknown }).code !== "ERR_CHECKPOINT_CONFLICT") throw error;
  }
}
