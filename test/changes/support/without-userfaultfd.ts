/**
 * Runs while a seccomp filter refuses userfaultfd, as in many containers. Prints why writes cannot
 * be tracked, and the results of two saves to a directory.
 */
import { trackingUnavailable } from "../../../ffi/index.ts";
import { libc } from "../../../ffi/libc.ts";
import { addressOf } from "../../../ffi/memory.ts";
import { MemoryFile, PAGE_SIZE } from "../../../src/index.ts";

const BYTES = 24 * 2 ** 20;

const ARM64 = process.arch === "arm64";
const SYS_PRCTL = ARM64 ? 167 : 157;
const SYS_USERFAULTFD = ARM64 ? 282 : 323;
const PR_SET_NO_NEW_PRIVS = 38;
const PR_SET_SECCOMP = 22;
const SECCOMP_MODE_FILTER = 2;

/** Makes userfaultfd fail with EPERM for this thread and those it starts. */
function refuseUserfaultfd(): void {
  // struct sock_filter { u16 code; u8 jt, jf; u32 k; }: load the number, compare, answer.
  const program = new DataView(new ArrayBuffer(32));
  const statements = [
    [0x20, 0, 0, 0],
    [0x15, 0, 1, SYS_USERFAULTFD],
    [0x06, 0, 0, 0x0005_0001],
    [0x06, 0, 0, 0x7fff_0000],
  ] as const;
  for (const [i, [code, jumpTrue, jumpFalse, k]] of statements.entries()) {
    program.setUint16(8 * i, code, true);
    program.setUint8(8 * i + 2, jumpTrue);
    program.setUint8(8 * i + 3, jumpFalse);
    program.setUint32(8 * i + 4, k, true);
  }
  // struct sock_fprog { u16 len; struct sock_filter *filter; }
  const description = new BigUint64Array(new ArrayBuffer(16));
  description[0] = BigInt(statements.length);
  description[1] = BigInt(addressOf(program));
  const address = addressOf(description);
  if (libc.syscall(SYS_PRCTL, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0) !== 0)
    throw new Error("no_new_privs failed");
  if (libc.syscall(SYS_PRCTL, PR_SET_SECCOMP, SECCOMP_MODE_FILTER, address, 0, 0, 0) !== 0)
    throw new Error("No seccomp filter can be set here");
}

if (process.argv[2] === "refused") refuseUserfaultfd();

/** Saves to one place twice while the program writes in its turns of the event loop. */
async function saveTwice(directory: string) {
  using file = MemoryFile.create();
  const words = file.view(file.allocate(BYTES), Int32Array);
  let number = 0;
  const write = () => {
    number++;
    for (let page = 0; page < words.length; page += PAGE_SIZE / 4) words[page] = number;
  };
  write();
  const timer = setInterval(write, 1);
  const reports = [];
  for (let save = 0; save < 2; save++)
    reports.push(
      await file.saveTo(directory, { userData: () => new TextEncoder().encode(String(number)) }),
    );
  clearInterval(timer);
  return reports;
}

async function isWhole(directory: string): Promise<boolean> {
  using back = await MemoryFile.loadFrom(directory);
  const saved = back.view({ start: 0, end: BYTES }, Int32Array);
  const number = Number(new TextDecoder().decode(back.userData!));
  return saved.every((word, i) => word === (i % (PAGE_SIZE / 4) === 0 ? number : 0));
}

const why = trackingUnavailable();
const directory = process.argv[3];
if (directory === undefined) console.log(JSON.stringify({ why }));
else {
  const reports = await saveTwice(directory);
  const detections = reports.map(({ detection }) => detection);
  console.log(JSON.stringify({ why, detections, isWhole: await isWhole(directory) }));
}
