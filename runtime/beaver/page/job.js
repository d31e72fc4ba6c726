// One job: what it is, each attempt on a scale, why it does not run now, and what can be done.

import { useEffect, useRef, useState } from 'preact/hooks';

import { follow, get, pathOf, post, pretty, urlOf } from './api.js';
import { ACTIONS } from './jobs.js';
import { Copy, Dialog, duration, html, linkTo, quoted, State, Time, Trouble, useAction } from './parts.js';

const HISTORY_MAX = 500;
const ENDS = new Set(['ACK', 'RETRY', 'FAIL', 'DEAD', 'TIMEOUT', 'RELEASE', 'REQUEUE', 'CANCEL', 'SNOOZE', 'DISCARD']);

/**
 * Returns the stretches of a job's life from its events: `{kind, from, to, attempt, outcome}` with
 * `kind` one of `waiting`, `running` and `backoff`, in order; the last one lasts until `now`.
 */
export function stretches(events, now) {
  const found = [];
  let open = null;
  const close = (at, outcome) => {
    if (!open) return;
    found.push({ ...open, to: Math.max(at, open.from), outcome });
    open = null;
  };
  const wait = (at, until) => {
    if (until > at) {
      found.push({ kind: 'backoff', from: at, to: Math.min(until, Math.max(now, at)) });
      if (until >= now) return;
    }
    open = { kind: 'waiting', from: Math.max(at, until ?? 0) };
  };
  for (const event of events) {
    const { event: name, time_ms: at } = event;
    if (name === 'ENQUEUE' || name === 'REQUEUE') { close(at, event); wait(at, event.run_at); }
    else if (name === 'DISPATCH') { close(at); open = { kind: 'running', from: at, attempt: event.attempt, worker: event.worker, token: event.token }; }
    else if (ENDS.has(name)) {
      close(at, event);
      if (['RETRY', 'RELEASE', 'TIMEOUT', 'SNOOZE'].includes(name)) wait(at, event.run_at);
    }
  }
  close(now);
  return found;
}

const said = ({ outcome }) => {
  if (!outcome) return 'runs';
  if (outcome.event === 'ACK') return 'completed';
  return outcome.cause ? outcome.cause.replaceAll('_', ' ') : outcome.event.toLowerCase();
};

function Timeline({ events, running }) {
  const [now, setNow] = useState(Date.now());
  useEffect(() => {
    if (!running) return undefined;
    const timer = setInterval(() => setNow(Date.now()), 1000);
    return () => clearInterval(timer);
  }, [running]);
  const parts = stretches(events, Math.max(now, events.at(-1)?.time_ms ?? 0));
  if (!parts.length) return null;
  const since = parts[0].from;
  const length = Math.max(1, parts.at(-1).to - since);
  const share = (ms) => `${(100 * ms) / length}%`;
  const attempts = parts.filter(({ kind }) => kind === 'running');
  return html`
    <div class="scale" role="img" aria-label=${`${attempts.length} attempts in ${duration(length)}`}>
      ${parts.map((part) => html`<span class=${`part ${part.kind} ${part.outcome && part.kind === 'running' && part.outcome.event !== 'ACK' ? 'bad' : ''}`}
        style=${{ left: share(part.from - since), width: share(part.to - part.from) }}
        title=${`${part.kind}${part.attempt ? `, attempt ${part.attempt}` : ''}: ${duration(part.to - part.from)}`}></span>`)}
    </div>
    <p class="legend"><span class="part waiting"></span> waiting <span class="part running"></span> running
      <span class="part running bad"></span> failed <span class="part backoff"></span> backoff · ${duration(length)} in all</p>
    <ol class="attempts">${attempts.map((part) => html`<li>
      <details open=${part === attempts.at(-1) && Boolean(part.outcome?.error)}>
        <summary>attempt ${part.attempt}: ${said(part)} after ${duration(part.to - part.from)}
          <span class="quiet"> · worker ${part.worker} · <${Time} ms=${part.from} /></span></summary>
        ${part.outcome?.error ? html`<pre class="error" tabindex="0">${part.outcome.error}</pre>` : html`<p class="quiet">It told no error.</p>`}
      </details></li>`)}</ol>`;
}

const NOTES = { run_at: (ms) => `not before ${new Date(ms).toLocaleString('sv')}`, cause: String, worker: (id) => `worker ${id}`, attempt: (n) => `attempt ${n}`, by: (who) => `by ${who}` };
const noteOf = (event) => Object.entries(NOTES).filter(([name]) => event[name]).map(([name, say]) => say(event[name])).join(' · ');

export function Job({ id, may, tell }) {
  const [job, setJob] = useState(null);
  const [story, setStory] = useState(null);
  const [problem, setProblem] = useState(null);
  const [children, setChildren] = useState([]);
  const looking = useRef(false);
  const load = async () => {
    if (looking.current) { looking.current = 'again'; return; }
    looking.current = true;
    try {
      const [one, told] = await Promise.all([find(id), get(`${pathOf(id)}/explain`)]);
      setJob(one);
      setStory(told);
      setProblem(null);
    } catch (trouble) {
      setProblem(trouble);
    }
    const again = looking.current === 'again';
    looking.current = false;
    if (again) load();
  };
  useEffect(() => {
    const control = new AbortController();
    setJob(null);
    load();
    get('jobs', { parent: id, limit: 100 }).then((found) => setChildren(found.jobs), () => {});
    follow({ job: id }, load, control.signal, load);
    // What is waited for may change without an event of this job.
    const timer = setInterval(() => { if (!document.hidden) load(); }, 5000);
    return () => { control.abort(); clearInterval(timer); };
  }, [id]);
  if (!job) return html`<h1>Job ${id}</h1><${Trouble} problem=${problem} />`;
  const { events } = story;
  return html`
    <h1>Job <span class="id">${id}</span> <${State} state=${job.state} /></h1>
    <${Trouble} problem=${problem} />
    <${Buttons} ...${{ job, may, tell, load }} />
    ${job.state === 'pending' && html`<section aria-labelledby="why"><h2 id="why">Why it does not run now</h2>
      <p>${story.because}</p>
      ${story.blocked_by.length > 0 && html`<ul>${story.blocked_by.map((other) => html`<li><a href=${linkTo('job', { rest: other })}>${other}</a></li>`)}</ul>`}
    </section>`}
    <section aria-labelledby="attempts"><h2 id="attempts">Attempts</h2>
      ${story.history_from > 1 && events[0]?.event !== 'ENQUEUE' && html`<p class="quiet">Events before seq ${story.history_from} are no longer kept.</p>`}
      <${Timeline} events=${events} running=${job.state === 'in_flight' || job.state === 'pending'} />
    </section>
    <dl class="facts">
      ${fact('Task', html`<a href=${linkTo('jobs', { task: job.task })}>${job.task}</a>`)}
      ${fact('Queue', html`<a href=${linkTo('jobs', { queue: job.queue })}>${job.queue}</a>`)}
      ${fact('Priority', job.priority)}
      ${fact('Attempt', `${job.attempt ?? 0} of ${job.max_attempts}`)}
      ${job.timeout_ms && fact('Time limit', duration(job.timeout_ms))}
      ${job.enqueued_ms && fact('Came in', html`<${Time} ms=${job.enqueued_ms} />`)}
      ${job.run_at_ms && fact('Not before', html`<${Time} ms=${job.run_at_ms} />`)}
      ${job.ended_ms && fact('Ended', html`<${Time} ms=${job.ended_ms} />`)}
      ${job.cause && fact('Cause', job.cause)}
      ${job.tags?.length && fact('Tags', job.tags.map((tag) => html`<a href=${linkTo('jobs', { tag })}>${tag}</a> `))}
      ${job.parent && fact('Parent', html`<a href=${linkTo('job', { rest: job.parent })}>${job.parent}</a>`)}
    </dl>
    <section aria-labelledby="payload"><h2 id="payload">Payload</h2><pre tabindex="0">${pretty(job.payload)}</pre></section>
    ${job.result !== undefined && html`<section aria-labelledby="result"><h2 id="result">Result</h2><pre tabindex="0">${pretty(job.result)}</pre></section>`}
    ${job.error && html`<section aria-labelledby="error"><h2 id="error">Error</h2><pre class="error" tabindex="0">${job.error}</pre></section>`}
    ${children.length > 0 && html`<section aria-labelledby="children"><h2 id="children">Children</h2>
      <ul>${children.map((child) => html`<li><a href=${linkTo('job', { rest: child.id })}>${child.id}</a> <${State} state=${child.state} /> ${child.task}</li>`)}</ul></section>`}
    <section aria-labelledby="events"><h2 id="events">Events</h2>
      <div class="wide" tabindex="0"><table><thead><tr><th class="number">Seq</th><th>Time</th><th>Event</th><th>Note</th></tr></thead>
        <tbody>${events.slice(-HISTORY_MAX).map((event) => html`<tr key=${event.seq}><td class="number">${event.seq}</td>
          <td><${Time} ms=${event.time_ms} /></td><td>${event.event}</td><td>${noteOf(event)}</td></tr>`)}</tbody></table></div>
    </section>`;
}

const fact = (name, value) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`;

/** A job by its id; `.` and `..` cannot stand in a path. */
async function find(id) {
  if (id !== '.' && id !== '..') return get(pathOf(id));
  const { jobs } = await get('jobs', { id });
  if (!jobs.length) throw new Error(`no job ${id}`);
  return jobs[0];
}

function Buttons({ job, may, tell, load }) {
  const [asked, setAsked] = useState('');
  const [payload, setPayload] = useState(null);
  const [busy, run] = useAction(tell);
  const act = async (action, body = {}) => {
    const { name } = ACTIONS[action];
    const answer = await run(() => post(`${pathOf(job.id)}/${action}`, body), ({ state }) => `${name}: the job is ${state.replace('_', ' ')}`);
    if (answer) { setAsked(''); setPayload(null); }
    load();
  };
  const retryWith = async () => {
    try {
      JSON.parse(payload);
    } catch (error) {
      tell({ text: `The payload is not JSON: ${error.message}`, bad: true });
      return;
    }
    await act('retry', `{"payload": ${payload}}`);
  };
  const curl = `curl -H "Authorization: Bearer $BEAVER_TOKEN" ${quoted(urlOf(pathOf(job.id)).href)}`;
  return html`<div class="actions" role="toolbar" aria-label="Actions">
    ${may.operate && Object.entries(ACTIONS).filter(([, { states }]) => states.includes(job.state)).map(([action, { name }]) =>
      html`<button type="button" disabled=${busy} onClick=${() => (action === 'retry' ? act('retry') : setAsked(action))}>${name}</button>`)}
    ${may.operate && ACTIONS.retry.states.includes(job.state) && html`<button type="button" disabled=${busy}
      onClick=${() => setPayload(pretty(job.payload))}>Retry with another payload</button>`}
    <${Copy} text=${`beaver explain ${quoted(job.id)}`}>Copy command<//>
    <${Copy} text=${curl}>Copy as curl<//>
    ${asked && html`<${Dialog} title=${`${ACTIONS[asked].name} this job`} action=${ACTIONS[asked].name} bad busy=${busy}
      onCancel=${() => setAsked('')} onConfirm=${() => act(asked)}>
      <p>${asked === 'cancel' ? 'It will not run; if it runs it is stopped first. A retry takes this back.' : 'It is removed for good.'}</p><//>`}
    ${payload !== null && html`<${Dialog} title="Retry with another payload" action="Retry" busy=${busy}
      onCancel=${() => setPayload(null)} onConfirm=${retryWith}>
      <label>Payload, as JSON <textarea rows="12" spellcheck="false" value=${payload} onInput=${(event) => setPayload(event.target.value)}></textarea></label><//>`}
  </div>`;
}
