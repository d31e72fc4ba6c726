// Requests to the HTTP API, and whether it can be reached.

const base = new URL('v1/', document.baseURI);

/** What the server refused: a problem of RFC 9457. */
export class Problem extends Error {
  constructor(facts) {
    super(facts.detail || facts.title);
    Object.assign(this, facts);
  }
}

/** Thrown where no answer came. */
export class Unreachable extends Error {}

const listeners = new Set();
export const connection = {
  lost: false,
  /** Calls `listener` at each change; returns what ends that. */
  listen(listener) {
    listeners.add(listener);
    return () => listeners.delete(listener);
  },
  set(lost) {
    if (lost === this.lost) return;
    this.lost = lost;
    for (const listener of listeners) listener(lost);
  },
};

let signedOut = () => {};
/** `listener` is called where the server wants a token. */
export const onSignedOut = (listener) => { signedOut = listener; };

export const urlOf = (path, params = {}) => {
  const url = new URL(path, base);
  for (const [name, value] of Object.entries(params)) {
    for (const one of [value].flat()) {
      if (one !== '' && one !== null && one !== undefined) url.searchParams.append(name, one);
    }
  }
  return url;
};

export const pathOf = (job) => `jobs/${encodeURIComponent(job)}`;

/** Sends a request and returns the JSON of its answer; throws `Problem` or `Unreachable`. */
export async function ask(method, path, { params, body, signal } = {}) {
  const init = { method, signal, headers: { Accept: 'application/json' }, credentials: 'same-origin' };
  if (body !== undefined) {
    init.body = typeof body === 'string' ? body : JSON.stringify(body);
    init.headers['Content-Type'] = 'application/json';
  }
  let answer;
  try {
    answer = await fetch(urlOf(path, params), init);
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    connection.set(true);
    throw new Unreachable('the server cannot be reached');
  }
  connection.set(false);
  const text = await answer.text();
  let json;
  try {
    json = parse(text);
  } catch {
    json = { status: answer.status, title: answer.statusText, detail: text.slice(0, 500) };
  }
  if (answer.ok) return json;
  if (answer.status === 401) signedOut();
  throw new Problem({ status: answer.status, ...json });
}

export const get = (path, params, signal) => ask('GET', path, { params, signal });
export const post = (path, body) => ask('POST', path, { body });

/** Numbers beyond what JavaScript holds stay as they are written. */
class Digits {
  constructor(source) { this.source = source; }
  toJSON() { return 'rawJSON' in JSON ? JSON.rawJSON(this.source) : Number(this.source); }
}

const parse = (text) => JSON.parse(text, (_, value, context) =>
  (typeof value === 'number' && context && Number.isInteger(value) && !Number.isSafeInteger(value)
    ? new Digits(context.source) : value));

/** Returns a value as JSON, indented. */
export const pretty = (value) => JSON.stringify(value, null, 2);

/**
 * Follows server-sent events until `signal` is aborted, over restarts of the server.
 * `take` gets the data of each; `resumed` is called where some may be missing.
 */
export async function follow(params, take, signal, resumed = () => {}) {
  let last = null;
  for (let wait = 500; !signal.aborted; wait = Math.min(2 * wait, 10000)) {
    try {
      const headers = { Accept: 'text/event-stream' };
      if (last !== null) headers['Last-Event-ID'] = last;
      const answer = await fetch(urlOf('events', params), { headers, signal, credentials: 'same-origin' });
      if (answer.status === 401) { signedOut(); return; }
      if (answer.ok) {
        connection.set(false);
        wait = 500;
        for await (const event of eventsOf(answer.body)) {
          if (event.id) last = event.id;
          if (event.event === 'gap' || event.event === 'cut') resumed();
          else if (event.data) take(parse(event.data));
        }
      }
    } catch (error) {
      if (signal.aborted) return;
    }
    await new Promise((done) => setTimeout(done, wait));
  }
}

async function* eventsOf(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split('\n\n');
    rest = blocks.pop();
    for (const block of blocks) {
      const event = { data: '' };
      for (const line of block.split('\n')) {
        const at = line.indexOf(':');
        if (at > 0) event[line.slice(0, at)] = line.slice(at + 1).replace(/^ /, '');
      }
      yield event;
    }
  }
}
