/** Opens a sink's description in a writing thread. */
import { FileWriter } from "./file-writer.ts";
import type { SinkDescription, SinkWriter } from "./sink.ts";

export async function openWriter(description: SinkDescription): Promise<SinkWriter> {
  if (description.kind === "file") return new FileWriter(description);
  const { UploadWriter } = await import("../remote/upload.ts");
  return new UploadWriter(description);
}
