// fastify and better-sqlite3 with group commit: what arrives while one batch is written makes up
// the next. WAL and FULL. The callback is parsed and inserted, and nothing else is done with it.
import Database from "better-sqlite3";
import Fastify from "fastify";

const [port, file] = process.argv.slice(2);
const database = new Database(file);
database.pragma("journal_mode = WAL");
database.pragma("synchronous = FULL");
database.exec("CREATE TABLE callbacks (id INTEGER PRIMARY KEY, received_at INTEGER, body TEXT)");
const insert = database.prepare("INSERT INTO callbacks (received_at, body) VALUES (?, ?)");
const insertAll = database.transaction((batch) => {
  for (const { at, body } of batch) insert.run(at, body);
});

let waiting = [];

function flush() {
  const batch = waiting;
  waiting = [];
  try {
    insertAll(batch);
    for (const { resolve } of batch) resolve({});
  } catch (error) {
    for (const { reject } of batch) reject(error);
  }
}

function keep(body) {
  return new Promise((resolve, reject) => {
    if (waiting.length === 0) setImmediate(flush);
    waiting.push({ at: Date.now(), body, resolve, reject });
  });
}

const app = Fastify({ logger: false });
app.addContentTypeParser("application/json", { parseAs: "string" }, (_, body, done) => {
  try {
    JSON.parse(body);
    done(null, body);
  } catch (error) {
    error.statusCode = 400;
    done(error);
  }
});
app.post("/", (request) => keep(request.body));
await app.listen({ host: "127.0.0.1", port: Number(port) });
