// Jobs: filters that stand in the address, a list that holds a window of any number, and actions
// on those that are selected or on all that match.

import { useCallback, useEffect, useMemo, useRef, useState } from 'preact/hooks';

import { get, pathOf, post } from './api.js';
import { count, Dialog, html, linkTo, localTime, readAddress, State, STATES, stateName, Trouble, useAction } from './parts.js';

const PAGE = 200;
const ROW_PX = 34;
const KEPT_PAGES = 12;
const REFRESH_MS = 3000;
const AT_ONCE = 4;
const URL_MAX = 4000;

export const FILTERS = ['state', 'queue', 'task', 'tag', 'text', 'parent', 'since_ms', 'until_ms'];
export const ACTIONS = {
  cancel: { name: 'Cancel', states: ['pending', 'in_flight'], says: 'will not run; those that run are stopped first' },
  retry: { name: 'Retry', states: ['dead', 'cancelled'], says: 'run again, with all their attempts' },
  discard: { name: 'Discard', states: ['pending', 'dead', 'cancelled'], says: 'are removed for good' },
};

/**
 * Pages of a list, of which those near what is seen are kept.  A page begins with the cursor at
 * which the one before it ended, so pages that were dropped can be had again.
 */
export class Pages {
  constructor(where, changed, fetch = get) {
    this.where = where;
    this.changed = changed;
    this.fetch = fetch;
    this.cursors = [null];
    this.kept = new Map();
    this.sizes = [];
    this.problem = null;
    this.control = new AbortController();
    this.loading = null;
  }

  get length() { return this.sizes.reduce((sum, size) => sum + size, 0); }

  /** True where every page was seen. */
  get whole() { return this.cursors.at(-1) === undefined; }

  /** Returns the row of an index, or undefined where its page is not here. */
  row(index) {
    const [page, at] = this.place(index);
    return this.kept.get(page)?.[at];
  }

  place(index) {
    let page = 0;
    let at = index;
    while (page < this.sizes.length && at >= this.sizes[page]) at -= this.sizes[page++];
    return [page, at];
  }

  /** Gets the pages of these rows, and the next one where they reach the end. */
  async want(first, last) {
    if (this.loading) return;
    const wanted = [];
    for (let page = this.place(first)[0]; page <= this.place(last)[0]; page += 1) wanted.push(page);
    const missing = wanted.find((page) => !this.kept.has(page) && this.cursors[page] !== undefined);
    for (const page of this.kept.keys()) {
      if (this.kept.size > KEPT_PAGES && !wanted.includes(page)) this.kept.delete(page);
    }
    if (missing === undefined) return;
    this.loading = this.load(missing);
    await this.loading;
    this.loading = null;
    if (!this.problem && !this.control.signal.aborted) await this.want(first, last);
  }

  async load(page) {
    try {
      let cursor = this.cursors[page];
      const jobs = [];
      // A request looks at a bounded number of jobs, so what it gives may be empty.
      do {
        const found = await this.fetch('jobs', { ...this.where, limit: PAGE - jobs.length, cursor }, this.control.signal);
        jobs.push(...found.jobs);
        cursor = found.cursor;
        this.scanned = found.scanned_to;
      } while (cursor !== null && jobs.length < PAGE / 2 && !this.control.signal.aborted);
      this.kept.set(page, jobs);
      this.sizes[page] = jobs.length;
      if (page + 1 >= this.cursors.length || this.cursors[page + 1] === undefined) this.cursors[page + 1] = cursor ?? undefined;
      this.problem = null;
    } catch (problem) {
      if (problem.name === 'AbortError') return;
      this.problem = problem;
    }
    this.changed();
  }

  /** Asks anew for the rows that are seen, so that their states stay true, and for new ones. */
  async refresh(first, last) {
    if (this.loading) return;
    const seen = [];
    for (let index = first; index < Math.min(last, this.length); index += 1) seen.push(this.row(index));
    const ids = seen.filter(Boolean).map(({ id }) => id);
    try {
      for (const batch of batches(ids)) {
        const found = await this.fetch('jobs', { id: batch }, this.control.signal);
        const now = new Map(found.jobs.map((job) => [job.id, job]));
        for (const jobs of this.kept.values()) {
          jobs.forEach((job, at) => { if (now.has(job.id)) jobs[at] = now.get(job.id); });
        }
      }
    } catch { return; }  // The next one tells.
    if (this.whole && !this.loading) await (this.loading = this.load(this.cursors.length - 2));
    this.loading = null;
    this.changed();
  }

  close() { this.control.abort(); }
}

/** Divides ids so that each part fits into an address. */
export function* batches(ids) {
  let batch = [];
  let size = 0;
  for (const id of ids) {
    size += encodeURIComponent(id).length + 4;
    if (size > URL_MAX && batch.length) { yield batch; batch = []; size = 0; }
    batch.push(id);
  }
  if (batch.length) yield batch;
}

const isAbout = (ms) => new Date(Number(ms) - new Date().getTimezoneOffset() * 60e3).toISOString().slice(0, 16);

function Filters({ params, queues }) {
  const set = (name) => (event) => {
    let { value } = event.target;
    if (name.endsWith('_ms')) value = value && String(new Date(value).getTime());
    // The address may have changed since this was drawn.
    location.hash = linkTo('jobs', { ...readAddress().params, [name]: value });
  };
  const field = (name, label, type = 'search') => html`<label>${label}
    <input type=${type} name=${name} list=${name === 'queue' ? 'queue-names' : undefined}
      value=${type === 'datetime-local' && params[name] ? isAbout(params[name]) : params[name] ?? ''} onChange=${set(name)} /></label>`;
  return html`<form class="filters" role="search" aria-label="Filters" onSubmit=${(event) => event.preventDefault()}>
    <label>State <select name="state" value=${params.state ?? ''} onChange=${set('state')}>
      <option value="">any</option>
      ${STATES.map((state) => html`<option value=${state}>${stateName(state)}</option>`)}
    </select></label>
    ${field('queue', 'Queue')} ${field('task', 'Task')} ${field('tag', 'Tag')} ${field('text', 'Text')}
    ${field('since_ms', 'Since', 'datetime-local')} ${field('until_ms', 'Until', 'datetime-local')}
    <datalist id="queue-names">${queues.map((name) => html`<option value=${name} />`)}</datalist>
    <a class="button" href=${linkTo('jobs')}>Clear</a>
  </form>`;
}

export function Jobs({ params, may, tell }) {
  const where = useMemo(() => Object.fromEntries(FILTERS.filter((name) => params[name]).map((name) => [name, params[name]])),
    [JSON.stringify(params)]);
  const [queues, setQueues] = useState([]);
  useEffect(() => { get('queues').then((found) => setQueues(found.queues.map(({ name }) => name)), () => {}); }, []);
  const [selected, setSelected] = useState(() => new Set());
  useEffect(() => setSelected(new Set()), [where]);
  return html`
    <h1>Jobs</h1>
    <${Filters} params=${params} queues=${queues} />
    ${may.operate && html`<${Actions} ...${{ where, selected, setSelected, tell }} />`}
    <${List} key=${JSON.stringify(where)} ...${{ where, selected, setSelected, may }} />`;
}

function List({ where, selected, setSelected, may }) {
  const [, changed] = useState(0);
  const pages = useMemo(() => new Pages(where, () => changed((n) => n + 1)), []);
  const box = useRef(null);
  const [top, setTop] = useState(0);
  const [height, setHeight] = useState(600);
  const first = Math.max(0, Math.floor(top / ROW_PX) - 10);
  const last = Math.ceil((top + height) / ROW_PX) + 10;
  const seen = useRef([0, 0]);
  seen.current = [first, last];
  useEffect(() => {
    const resized = new ResizeObserver(() => setHeight(box.current?.clientHeight ?? 600));
    resized.observe(box.current);
    const timer = setInterval(() => { if (!document.hidden) pages.refresh(...seen.current); }, REFRESH_MS);
    return () => { resized.disconnect(); clearInterval(timer); pages.close(); };
  }, []);
  useEffect(() => { pages.want(first, last); }, [first, last]);
  const { length } = pages;
  const rows = [];
  for (let index = first; index < Math.min(last, length); index += 1) rows.push(index);
  const pick = useCallback((job, on) => setSelected((now) => {
    const next = new Set(now);
    if (on) next.add(job); else next.delete(job);
    return next;
  }), []);
  const step = (event) => {
    const move = { ArrowDown: 1, ArrowUp: -1, j: 1, k: -1 }[event.key];
    if (!move || event.target.matches('input')) return;
    const links = [...box.current.querySelectorAll('a.row-link')];
    const at = links.indexOf(document.activeElement);
    links[at < 0 ? 0 : at + move]?.focus();
    event.preventDefault();
  };
  return html`
    <${Trouble} problem=${pages.problem} />
    <p class="told" role="status">${count(length)}${pages.whole ? '' : ' or more'} jobs match.
      ${!pages.whole && pages.scanned ? ` Looked through seq ${count(pages.scanned)}.` : ''}</p>
    <div class="list" ref=${box} role="grid" aria-label="Jobs" aria-rowcount=${pages.whole ? length : -1} tabindex="0"
      onScroll=${(event) => setTop(event.target.scrollTop)} onKeyDown=${step}>
      <div class=${`row head ${may.operate ? 'picks' : ''}`} role="row">
        ${may.operate && html`<span role="columnheader"><span class="hidden">Select</span></span>`}
        ${['State', 'Task', 'Queue', 'Id', 'Attempts', 'Came in', 'Why'].map((name) => html`<span role="columnheader">${name}</span>`)}
      </div>
      <div style=${{ height: `${length * ROW_PX}px`, position: 'relative' }} role="rowgroup">
        ${rows.map((index) => html`<${Row} key=${index} ...${{ index, job: pages.row(index), selected, pick, may }} />`)}
      </div>
    </div>`;
}

const why = (job) => job.waiting || (job.error ?? '').split('\n', 1)[0] || (job.cause ?? '');

function Row({ index, job, selected, pick, may }) {
  const style = { transform: `translateY(${index * ROW_PX}px)`, height: `${ROW_PX}px` };
  if (!job) return html`<div class="row" role="row" aria-rowindex=${index + 2} style=${style}><span role="gridcell">…</span></div>`;
  return html`<div class=${`row ${may.operate ? 'picks' : ''}`} role="row" aria-rowindex=${index + 2} style=${style}>
    ${may.operate && html`<span role="gridcell"><input type="checkbox" aria-label=${`Select ${job.id}`} checked=${selected.has(job.id)}
      onChange=${(event) => pick(job.id, event.target.checked)} /></span>`}
    <span role="gridcell"><${State} state=${job.state} /></span>
    <span role="gridcell">${job.task}</span>
    <span role="gridcell">${job.queue}</span>
    <span role="gridcell"><a class="row-link" href=${linkTo('job', { rest: job.id })}>${job.id}</a></span>
    <span role="gridcell">${job.attempt ?? ''}${job.max_attempts ? ` of ${job.max_attempts}` : ''}</span>
    <span role="gridcell">${job.enqueued_ms ? localTime(job.enqueued_ms) : ''}</span>
    <span role="gridcell" class="why" title=${job.error ?? ''}>${why(job)}</span>
  </div>`;
}

// -- actions -----------------------------------------------------------------------------------

/** Carries out an action on named jobs, a few at a time; returns how many took it, and what refused. */
export async function each(action, jobs, progress, send = post) {
  const left = [...jobs];
  const refused = [];
  let done = 0;
  await Promise.all(Array.from({ length: AT_ONCE }, async () => {
    while (left.length) {
      const job = left.shift();
      try {
        await send(`${pathOf(job)}/${action}`, {});
        done += 1;
      } catch (problem) {
        refused.push({ job, why: problem.message });
      }
      progress({ done, refused: refused.length, matched: jobs.length });
    }
  }));
  return { done, refused };
}

function Actions({ where, selected, setSelected, tell }) {
  const [all, setAll] = useState(null);
  const [asked, setAsked] = useState(null);
  const [progress, setProgress] = useState(null);
  const [busy, run] = useAction(tell);
  useEffect(() => { setAll(null); setAsked(null); }, [where]);
  const [matching, setMatching] = useState(null);
  useEffect(() => {
    setMatching(null);
    if (!Object.keys(where).length) return;
    const action = Object.keys(ACTIONS).find((name) => ACTIONS[name].states.includes(where.state)) ?? 'discard';
    post('bulk', { action, where: numbers(where), dry_run: true }).then((found) => setMatching(found.matched), () => {});
  }, [where]);
  const choose = async (action) => {
    if (all === null) { setAsked({ action, matched: selected.size }); return; }
    const found = await run(() => post('bulk', { action, where: numbers(where), dry_run: true }));
    if (found) setAsked({ action, matched: found.matched });
  };
  const carryOut = async () => {
    const { action } = asked;
    const { name } = ACTIONS[action];
    setAsked(null);
    if (all !== null) {
      await bulk(action, where, setProgress, run, tell);
    } else {
      setProgress({ done: 0, refused: 0, matched: selected.size, name });
      const { done, refused } = await each(action, [...selected], (now) => setProgress({ ...now, name }));
      const why = refused.length ? `; ${count(refused.length)} refused, the first: ${refused[0].why}` : '';
      tell({ text: `${name}: ${count(done)} done${why}`, bad: refused.length > 0 });
    }
    setProgress(null);
    setAll(null);
    setSelected(new Set());
  };
  const some = selected.size > 0 || all !== null;
  return html`<div class="actions" role="toolbar" aria-label="Actions">
    <span role="status">${all !== null ? `All ${count(all)} that match are selected.` : `${count(selected.size)} selected.`}</span>
    ${all === null && matching > 0 && html`<button type="button" disabled=${busy} onClick=${() => setAll(matching)}>
      Select all ${count(matching)} that match</button>`}
    ${some && html`<button type="button" onClick=${() => { setAll(null); setSelected(new Set()); }}>Select none</button>`}
    ${Object.entries(ACTIONS).map(([action, { name }]) =>
      html`<button type="button" disabled=${busy || !some} onClick=${() => choose(action)}>${name}</button>`)}
    ${progress && html`<${Progress} ...${progress} />`}
    ${asked && html`<${Dialog} title=${`${ACTIONS[asked.action].name} ${count(asked.matched)} jobs`} bad=${asked.action !== 'retry'}
      action=${`${ACTIONS[asked.action].name} ${count(asked.matched)} jobs`} disabled=${!asked.matched} busy=${busy}
      onCancel=${() => setAsked(null)} onConfirm=${carryOut}>
      <p>${count(asked.matched)} jobs ${ACTIONS[asked.action].says}.</p>
      ${all !== null && html`<p>Those that match now: ${Object.entries(where).map(([key, value]) => html`<code>${key}=${value}</code> `)}</p>`}<//>`}
  </div>`;
}

export const Progress = ({ name, done, refused, matched }) => html`<label class="progress">${name}: ${count(done + refused)} of ${count(matched)}
  <progress max=${matched || 1} value=${done + refused}></progress></label>`;

/** The filters as a body has them: times are numbers. */
export const numbers = (where) => Object.fromEntries(Object.entries(where).map(([key, value]) => [key, key.endsWith('_ms') ? Number(value) : value]));

/** Starts a bulk action and waits for its end, which a restart of the server only delays. */
export async function bulk(action, where, setProgress, run, tell) {
  const { name } = ACTIONS[action];
  const begun = await run(() => post('bulk', { action, where: numbers(where), dry_run: false }));
  if (!begun) return;
  for (;;) {
    try {
      const now = await get(`bulk/${encodeURIComponent(begun.bulk)}`);
      setProgress({ ...now, name });
      if (now.state === 'done') {
        tell({ text: `${name}: ${count(now.done)} done, ${count(now.refused)} refused`, bad: now.refused > 0 });
        return;
      }
    } catch (problem) {
      if (problem.status === 404 || problem.status === 401) { tell({ text: problem.message, bad: true }); return; }
    }
    await new Promise((done) => setTimeout(done, 500));
  }
}
