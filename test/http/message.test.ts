/** Answers of HTTP/1.1, byte by byte and whole. */
import { describe, expect, test } from "bun:test";
import { MessageParser, ProtocolError } from "../../src/http/message.ts";

interface Parsed {
  readonly parser: MessageParser;
  readonly body: string;
}

/** Parses `text` in pieces of `pieceBytes`. */
function parse(text: string, { method = "GET", pieceBytes = text.length } = {}): Parsed {
  const parser = new MessageParser(method);
  const bytes = Buffer.from(text, "latin1");
  let body = "";
  const take = (piece: Uint8Array): void => {
    body += Buffer.from(piece).toString("latin1");
  };
  for (let at = 0; at < bytes.length; at += pieceBytes)
    parser.push(bytes.subarray(at, at + pieceBytes), take);
  return { parser, body };
}

interface Good {
  readonly text: string;
  readonly method?: string;
  readonly body?: string;
  readonly isReusable?: boolean;
  /** The end of the connection ends the body. */
  readonly endsByClose?: boolean;
}

const GOOD: Record<string, Good> = {
  "a body with a length": {
    text: 'HTTP/1.1 206 Partial Content\r\nContent-Length: 5\r\nETag: "x"\r\n\r\nhello',
    body: "hello",
  },
  "chunks with an extension and a trailer": {
    text:
      "HTTP/1.1 206 x\r\nTransfer-Encoding: chunked\r\n\r\n" +
      "3;a=b\r\nhel\r\n2 \r\nlo\r\n0\r\nX-Sum: 1\r\n\r\n",
    body: "hello",
  },
  "line ends without a carriage return": {
    text: "HTTP/1.1 206\nContent-Length: 2\n\nhi",
    body: "hi",
  },
  "an interim answer before the final one": {
    text:
      "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" +
      "HTTP/1.1 206 y\r\nContent-Length: 1\r\n\r\na",
    body: "a",
  },
  "an answer to HEAD": { text: "HTTP/1.1 206 x\r\nContent-Length: 500\r\n\r\n", method: "HEAD" },
  "an empty body": { text: "HTTP/1.1 206 x\r\nContent-Length: 0\r\n\r\n" },
  "a connection that closes behind a length": {
    text: "HTTP/1.1 206 x\r\nConnection: Keep-Alive, Close\r\nContent-Length: 1\r\n\r\na",
    body: "a",
    isReusable: false,
  },
  "HTTP/1.0": {
    text: "HTTP/1.0 206 x\r\nContent-Length: 1\r\n\r\na",
    body: "a",
    isReusable: false,
  },
  "a body up to the end of the connection": {
    text: "HTTP/1.1 206 x\r\n\r\nhello",
    body: "hello",
    isReusable: false,
    endsByClose: true,
  },
  "a length beside chunks": {
    text:
      "HTTP/1.1 206 x\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n" +
      "1\r\na\r\n0\r\n\r\n",
    body: "a",
    isReusable: false,
  },
};

describe("MessageParser", () => {
  for (const [title, good] of Object.entries(GOOD)) {
    test(`reads ${title}, whole and in pieces`, () => {
      const { text, body = "", isReusable = true, endsByClose = false, method = "GET" } = good;
      for (const pieceBytes of [text.length, 1, 2, 3, 7]) {
        const parsed = parse(text, { method, pieceBytes });
        expect(parsed.parser.head).toMatchObject({ status: 206 });
        expect(parsed.body).toBe(body);
        expect(parsed.parser.hasEnded).toBe(!endsByClose);
        expect(parsed.parser.close()).toBe(true);
        expect(parsed.parser.isReusable).toBe(isReusable);
      }
    });
  }

  test("keeps headers, and joins those that come twice", () => {
    const { parser } = parse(
      'HTTP/1.1 206 x\r\nA: 1\r\nETag: "x" \r\na: 2\r\nContent-Length: 0\r\n\r\n',
    );
    expect(Object.fromEntries(parser.head!.headers)).toMatchObject({ a: "1, 2", etag: '"x"' });
  });

  test("says that a body is not complete when the connection ends within it", () => {
    const { parser } = parse("HTTP/1.1 206 x\r\nContent-Length: 5\r\n\r\nhell");
    expect(parser.close()).toBe(false);
    expect(parse("HTTP/1.1 206 x\r\nConte").parser.close()).toBe(false);
  });

  test("does not reuse a connection with bytes behind the answer", () => {
    const { parser, body } = parse("HTTP/1.1 206 x\r\nContent-Length: 2\r\n\r\nhi!");
    expect(body).toBe("hi");
    expect(parser.hasEnded).toBe(true);
    expect(parser.isReusable).toBe(false);
  });

  const chunked = "HTTP/1.1 206 x\r\nTransfer-Encoding: chunked\r\n\r\n";
  const BAD: Record<string, string> = {
    "another protocol": "SSH-2.0-OpenSSH\r\n\r\n",
    "HTTP/2": "HTTP/2 200\r\n\r\n",
    "two lengths": "HTTP/1.1 206 x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "a negative length": "HTTP/1.1 206 x\r\nContent-Length: -5\r\n\r\nhello",
    "a coding other than chunked": "HTTP/1.1 206 x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
    "a chunk without a length": `${chunked}xyz\r\n`,
    "a chunk that is too long": `${chunked}1\r\nab\r\n`,
    "a header without a name": "HTTP/1.1 206 x\r\n: a\r\n\r\n",
    "a header over two lines": "HTTP/1.1 206 x\r\nA: b\r\n c\r\n\r\n",
    "a protocol change": "HTTP/1.1 101 x\r\n\r\n",
    "a head without an end": `HTTP/1.1 206 x\r\nA: ${"a".repeat(2 ** 16)}`,
    "a chunk's line without an end": `${chunked}1;${"a".repeat(2000)}`,
  };
  for (const [title, text] of Object.entries(BAD)) {
    test(`refuses ${title}`, () => {
      expect(() => parse(text)).toThrow(ProtocolError);
      expect(() => parse(text, { pieceBytes: 5 })).toThrow(ProtocolError);
    });
  }
});
