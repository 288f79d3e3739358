/** Opens a sink's description in a writing thread. */
import { onUse } from "../errors/lazy-import.ts";
import { FileWriter } from "./file-writer.ts";
import type { SinkDescription, SinkWriter } from "./sink.ts";

const importUpload = onUse(() => import("../remote/upload.ts"));

export async function openWriter(description: SinkDescription): Promise<SinkWriter> {
  if (description.kind === "file") return new FileWriter(description);
  const { UploadWriter } = await importUpload();
  return new UploadWriter(description);
}
