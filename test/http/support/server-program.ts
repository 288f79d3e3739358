/** The S3 server of the tests as a process: prints its endpoint, and serves until it is killed. */
import { S3Server } from "./s3-server.ts";

const server = await S3Server.start();
console.log(server.endpoint);
