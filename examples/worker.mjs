// A worker in Node.js (18 or later) without a dependency, which counts the words of files.
//
//     beaver run --http 127.0.0.1:9090 &
//     BEAVER_TOKEN=$(cat data/token) node examples/worker.mjs http://127.0.0.1:9090 &
//     beaver enqueue count_words '{"path": "README.md"}' --wait
import { readFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";

const tasks = {
  count_words: async ({ path }) => ({ words: (await readFile(path, "utf8")).match(/\S+/g)?.length ?? 0 }),
};
const capacity = 4, running = new Set(), url = process.argv[2] + "/v1";
const headers = { Authorization: `Bearer ${process.env.BEAVER_TOKEN}`, "Content-Type": "application/json" };
let worker, pause;

async function ask(path, body, method = "POST") { // until the server has an answer
  for (;;) {
    try {
      const answer = await fetch(url + path, { method, headers, body: JSON.stringify(body) });
      if (answer.status < 500) return { status: answer.status, body: await answer.json() };
    } catch { /* nobody answers: it is asked again */ }
    await sleep(1000);
  }
}

async function register() {
  const { body } = await ask("/workers", { name: "node", tasks: Object.keys(tasks), capacity });
  [worker, pause] = [body.worker, body.heartbeat_ms];
}

async function run({ token, task, payload }) {
  running.add(token);
  await tasks[task](payload).then(
    (result) => ask(`/attempts/${token}/ack`, { result }),
    (error) => ask(`/attempts/${token}/fail`, { error: String(error.stack ?? error) }));
  running.delete(token);
}

async function beat() { // Registered anew, the worker takes with it what it runs.
  for (; ; await sleep(pause))
    if ((await ask(`/workers/${worker}/heartbeat`, { running: [...running] })).status === 404) await register();
}

process.on("SIGTERM", () => ask(`/workers/${worker}`, {}, "DELETE").then(() => process.exit()));
await register();
for (beat(); ; running.size < capacity || (await sleep(50))) {
  const { body } = await ask(`/workers/${worker}/pull`, { max: capacity - running.size || 1, wait_ms: 20000 });
  body.attempts ? body.attempts.forEach(run) : await sleep(1000);
}
