/** Opens a sink's description in a writing thread. */
import { FileWriter } from "./file-writer.ts";
import type { SinkDescription, SinkWriter } from "./sink.ts";

export function openWriter(description: SinkDescription): SinkWriter {
  return new FileWriter(description);
}
