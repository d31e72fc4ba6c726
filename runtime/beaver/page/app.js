// The frame: signing in, the links, what is told, and the palette.

import { h, render } from 'preact';
import { useCallback, useEffect, useRef, useState } from 'preact/hooks';

import { connection, Problem } from './api.js';
import { Dead } from './dead.js';
import { Job } from './job.js';
import { Jobs } from './jobs.js';
import { Overview } from './overview.js';
import { html, linkTo, onSignedOut, useAddress } from './parts.js';
import { Queues } from './queues.js';
import { session, signIn, signInByLink, signOut } from './session.js';
import { Workers } from './workers.js';

const VIEWS = { overview: Overview, jobs: Jobs, job: Job, queues: Queues, workers: Workers, dead: Dead };
const LINKS = [['overview', 'Overview', 'o'], ['jobs', 'Jobs', 'j'], ['queues', 'Queues', 'q'], ['workers', 'Workers', 'w'], ['dead', 'Dead letters', 'd']];
const TOLD_MS = 8000;
const CHANGES = new Set(['operate', 'admin']);

function App() {
  const address = useAddress();
  const [who, setWho] = useState(undefined);
  const [told, setTold] = useState(null);
  const [lost, setLost] = useState(false);
  const [palette, setPalette] = useState(false);
  const clear = useRef(0);
  const tell = useCallback((what) => {
    clearTimeout(clear.current);
    setTold(what);
    if (!what.bad) clear.current = setTimeout(() => setTold(null), TOLD_MS);
  }, []);
  useEffect(() => {
    onSignedOut(() => setWho(null));
    const ask = async () => {
      try {
        setWho(await signInByLink() ?? await session());
      } catch (problem) {
        if (problem instanceof Problem && problem.status !== 503) {
          if (problem.detail?.startsWith('link')) tell({ text: problem.detail, bad: true });
          setWho(null);
        }
        else setTimeout(ask, 2000);
      }
    };
    ask();
    return connection.listen(setLost);
  }, []);
  useEffect(() => {
    const pressed = (event) => {
      if ((event.ctrlKey || event.metaKey) && event.key === 'k') { event.preventDefault(); setPalette(true); return; }
      if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches('input, textarea, select')) return;
      if (event.key === '/') { event.preventDefault(); setPalette(true); }
    };
    addEventListener('keydown', pressed);
    return () => removeEventListener('keydown', pressed);
  }, []);
  useEffect(() => {
    const name = LINKS.find(([view]) => view === address.view)?.[1] ?? (address.rest || 'Beaver');
    document.title = `${name} · Beaver`;
  }, [address.view, address.rest]);
  const notice = html`<div aria-live="polite">
    ${lost && html`<p role="alert" class="trouble">The server cannot be reached. What you see may be old; it is asked again and again.</p>`}
    ${told && html`<p class=${`told ${told.bad ? 'trouble' : ''}`} role="status">${told.text}
      <button type="button" aria-label="Dismiss" onClick=${() => setTold(null)}>×</button></p>`}
  </div>`;
  if (who === undefined) return html`<main>${notice}</main>`;
  if (who === null) return html`<main>${notice}<${SignIn} onDone=${setWho} /></main>`;
  const may = { operate: CHANGES.has(who.role) };
  const View = VIEWS[address.view];
  const leave = async () => {
    try { await signOut(); } finally { setWho(null); }
  };
  return html`
    <a class="skip" href="#main" onClick=${(event) => { event.preventDefault(); document.getElementById('main').focus(); }}>To the content</a>
    <header><nav aria-label="Views">
      <strong>Beaver</strong>
      ${LINKS.map(([view, name]) => html`<a href=${linkTo(view)} aria-current=${view === address.view ? 'page' : undefined}>${name}</a>`)}
      <span class="space"></span>
      <button type="button" onClick=${() => setPalette(true)} title="Ctrl+K">Go to …</button>
      <span class="quiet">${who.name ?? ''} (${who.role}${may.operate ? '' : ', read-only'})</span>
      <button type="button" onClick=${leave}>Sign out</button>
    </nav></header>
    <main id="main" tabindex="-1">
      ${notice}
      ${View ? h(View, { key: address.view + address.rest, id: address.rest, params: address.params, may, tell })
    : html`<h1>No such view</h1><p><a href=${linkTo('overview')}>Overview</a></p>`}
    </main>
    ${palette && html`<${Palette} onClose=${() => setPalette(false)} />`}`;
}

function SignIn({ onDone }) {
  const [token, setToken] = useState('');
  const [problem, setProblem] = useState('');
  const [busy, setBusy] = useState(false);
  const submit = async (event) => {
    event.preventDefault();
    setBusy(true);
    try {
      onDone(await signIn(token.trim()));
    } catch (trouble) {
      setProblem(trouble.status === 401 ? 'This token is not known, was revoked, or has expired.' : trouble.message);
    } finally {
      setBusy(false);
    }
  };
  return html`<form class="sign-in" onSubmit=${submit}>
    <h1>Beaver</h1>
    <label>Token <input type="password" autocomplete="current-password" required autofocus value=${token}
      onInput=${(event) => setToken(event.target.value)} /></label>
    ${problem && html`<p role="alert" class="trouble">${problem}</p>`}
    <button class="main" disabled=${busy}>Sign in</button>
    <p class="quiet">The file <code>token</code> in the data directory holds that of the owner. <code>beaver ui</code> opens this page
      signed in; <code>beaver token create --role read</code> makes another.</p>
  </form>`;
}

/** Goes to a view, or to a job by its id; the keyboard is enough. */
function Palette({ onClose }) {
  const [text, setText] = useState('');
  const [at, setAt] = useState(0);
  const dialog = useRef(null);
  useEffect(() => { dialog.current.showModal(); }, []);
  const wanted = text.trim();
  const choices = [
    ...LINKS.filter(([, name]) => name.toLowerCase().includes(wanted.toLowerCase())).map(([view, name]) => [name, linkTo(view)]),
    ...(wanted ? [[`Job ${wanted}`, linkTo('job', { rest: wanted })], [`Jobs of the task ${wanted}`, linkTo('jobs', { task: wanted })],
      [`Jobs of the queue ${wanted}`, linkTo('jobs', { queue: wanted })], [`Jobs with the text ${wanted}`, linkTo('jobs', { text: wanted })]] : []),
  ];
  const go = (link) => { location.hash = link; onClose(); };
  const pressed = (event) => {
    const move = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!move) return;
    event.preventDefault();
    setAt((now) => (now + move + choices.length) % choices.length);
  };
  const chosen = choices[Math.min(at, choices.length - 1)];
  return html`<dialog ref=${dialog} class="palette" aria-label="Go to" onClose=${onClose} onKeyDown=${pressed}>
    <form onSubmit=${(event) => { event.preventDefault(); if (chosen) go(chosen[1]); }}>
      <input type="search" aria-label="View, job id, task, queue or text" aria-controls="choices" autofocus value=${text}
        onInput=${(event) => { setText(event.target.value); setAt(0); }} />
      <ul id="choices">${choices.map((choice) => html`<li aria-current=${choice === chosen ? 'true' : undefined}>
        <a href=${choice[1]} onClick=${(event) => { event.preventDefault(); go(choice[1]); }}>${choice[0]}</a></li>`)}</ul>
    </form>
  </dialog>`;
}

render(html`<${App} />`, document.getElementById('app'));
