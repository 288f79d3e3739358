/** The pages of a file with mapped pages that may have been written since it was restored. */
import { PrivatePage } from "../../ffi/index.ts";
import { type MappedPages, PrivatePages } from "../pages/private-pages.ts";
import { type PageRuns, RunCollector } from "./page-runs.ts";

/** The pages of `used` without mapped ones that were not copied. @throws {SyscallError} */
export function writtenOfMapped(mapped: MappedPages, used: PageRuns): RunCollector {
  const written = new RunCollector();
  using pages = new PrivatePages();
  for (let i = 0; i < used.start.length; i++) {
    const end = used.start[i]! + used.length[i]!;
    for (let page = used.start[i]!; page < end; ) {
      const first = mapped.next(page, end, true);
      if (first > page) written.add(page, first);
      page = mapped.next(first, end, false);
      pages.visit(mapped, first, page, (from, to, state) => {
        if (state === PrivatePage.Copy) written.add(from, to);
      });
    }
  }
  return written;
}
