// What every view uses: markup, the address, polling, and the words for times and states.

import { h } from 'preact';
import { useCallback, useEffect, useRef, useState } from 'preact/hooks';
import htm from 'htm';

import { get, onSignedOut, Unreachable } from './api.js';

export const html = htm.bind(h);

export const STATES = ['pending', 'in_flight', 'completed', 'dead', 'cancelled', 'discarded'];
export const stateName = (state) => state.replace('_', ' ');

// -- the address -----------------------------------------------------------------------------

/** Returns what the address shows: `{view, rest, params}` of `#/view/rest?params`. */
export function readAddress() {
  const [path, query = ''] = location.hash.replace(/^#\/?/, '').split('?');
  const [view, ...rest] = path.split('/');
  return {
    view: view || 'overview',
    rest: rest.map(decodeURIComponent).join('/'),
    params: Object.fromEntries(new URLSearchParams(query)),
  };
}

/** Returns the address of a view; parameters without a value are left out. */
export function linkTo(view, { rest, ...params } = {}) {
  const query = new URLSearchParams(Object.entries(params).filter(([, value]) => value));
  const path = rest === undefined ? view : `${view}/${encodeURIComponent(rest)}`;
  return `#/${path}${query.size ? `?${query}` : ''}`;
}

export function useAddress() {
  const [address, setAddress] = useState(readAddress);
  useEffect(() => {
    const changed = () => setAddress(readAddress());
    addEventListener('hashchange', changed);
    return () => removeEventListener('hashchange', changed);
  }, []);
  return address;
}

// -- asking ----------------------------------------------------------------------------------

/** Asks again every `every` ms while the page is seen; keeps the last answer while there is none. */
export function usePoll(path, every = 2000, params = {}) {
  const [found, setFound] = useState({ data: null, problem: null });
  const asking = useRef(null);
  const key = JSON.stringify([path, params]);
  const refresh = useCallback(async () => {
    asking.current?.abort();
    const control = asking.current = new AbortController();
    try {
      const data = await get(path, params, control.signal);
      setFound({ data, problem: null, at: Date.now() });
    } catch (problem) {
      if (problem.name !== 'AbortError') setFound(({ data }) => ({ data, problem }));
    }
  }, [key]);
  useEffect(() => {
    let timer;
    let over = false;
    const tick = async () => {
      if (!document.hidden) await refresh();
      if (!over) timer = setTimeout(tick, every);
    };
    const seen = () => { if (!document.hidden) refresh(); };
    document.addEventListener('visibilitychange', seen);
    tick();
    return () => {
      over = true;
      clearTimeout(timer);
      asking.current?.abort();
      document.removeEventListener('visibilitychange', seen);
    };
  }, [refresh, every]);
  return { ...found, refresh };
}

/** Returns `[busy, run]`: `run(action)` carries out one at a time and tells what went wrong. */
export function useAction(tell) {
  const [busy, setBusy] = useState(false);
  const run = async (action, done) => {
    setBusy(true);
    try {
      const answer = await action();
      if (done) tell({ text: typeof done === 'function' ? done(answer) : done });
      return answer;
    } catch (problem) {
      tell({ text: problem.message, bad: true });
      return undefined;
    } finally {
      setBusy(false);
    }
  };
  return [busy, run];
}

export { onSignedOut };

// -- words -----------------------------------------------------------------------------------

/** Returns a length of time in its two largest units, as `1 h 12 min`. */
export function duration(ms) {
  if (ms === null || ms === undefined) return '';
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 60e3) return `${(ms / 1000).toFixed(ms < 10e3 ? 1 : 0)} s`;
  const units = [[86400e3, 'd'], [3600e3, 'h'], [60e3, 'min'], [1e3, 's']];
  const first = units.findIndex(([size]) => ms >= size);
  return units.slice(first, first + 2).map(([size, name], at) =>
    [Math.floor((at ? ms % units[first][0] : ms) / size), name])
    .filter(([count]) => count).map(([count, name]) => `${count} ${name}`).join(' ');
}

export const count = (n) => n.toLocaleString('en');

export const localTime = (ms) => new Date(ms).toLocaleString('sv');

export function Time({ ms }) {
  if (!ms) return null;
  const at = new Date(ms);
  return html`<time datetime=${at.toISOString()} title=${at.toISOString()}>${localTime(ms)}</time>`;
}

// -- parts -----------------------------------------------------------------------------------

export const State = ({ state }) => html`<span class="state ${state}">${stateName(state)}</span>`;

/** What went wrong; that the server cannot be reached is told once, above all. */
export const Trouble = ({ problem }) =>
  problem && !(problem instanceof Unreachable) && html`<p role="alert" class="trouble">${problem.message}</p>`;

export const Empty = ({ children }) => html`<p class="empty">${children}</p>`;

/** A dialog that asks before something is done.  `children` say what. */
export function Dialog({ title, action, bad, busy, disabled, onCancel, onConfirm, children }) {
  const dialog = useRef(null);
  useEffect(() => { dialog.current.showModal(); }, []);
  const confirm = (event) => { event.preventDefault(); onConfirm(); };
  return html`<dialog ref=${dialog} aria-labelledby="dialog-title" onCancel=${onCancel}>
    <form onSubmit=${confirm}>
      <h2 id="dialog-title">${title}</h2>
      ${children}
      <p class="buttons">
        <button type="button" onClick=${onCancel}>Keep as it is</button>
        <button class=${bad ? 'bad' : 'main'} disabled=${busy || disabled}>${action}</button>
      </p>
    </form>
  </dialog>`;
}

export function Copy({ text, children }) {
  const [copied, setCopied] = useState(false);
  const copy = async () => {
    await navigator.clipboard.writeText(text);
    setCopied(true);
    setTimeout(() => setCopied(false), 1500);
  };
  return html`<button type="button" onClick=${copy} title=${text}>${copied ? 'Copied' : children}</button>`;
}

/** Quotes a word for a POSIX shell. */
export const quoted = (word) => (/^[\w./:@-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`);
