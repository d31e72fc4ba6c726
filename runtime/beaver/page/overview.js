// The overview: what needs attention, how fast jobs come and go, and every queue.

import { useState } from 'preact/hooks';

import { Chart } from './chart.js';
import { count, duration, Empty, html, linkTo, Trouble, usePoll } from './parts.js';

const SPANS = [[60e3, '1 min'], [600e3, '10 min'], [3600e3, '1 h'], [86400e3, '1 day'], [7 * 86400e3, '1 week']];
const POINTS = 60;
const STALL_MS = 1000;

/** Returns what somebody should look at: `{text, to, bad}`, the worst first. */
export function attention(status) {
  const found = [];
  const add = (text, to, bad = false) => found.push({ text, to, bad });
  const queues = Object.entries(status.queues);
  if (status.halted) add(`Nothing is dispatched until a restart: ${status.halted}`, linkTo('overview'), true);
  if (status.disk_full) add('The disk is full: new jobs are refused', linkTo('overview'), true);
  if (status.pending && !status.workers.length) add('Jobs wait, and no worker is there', linkTo('workers'), true);
  for (const [name, queue] of queues) {
    if (queue.dead) add(`${count(queue.dead)} dead in ${name}`, linkTo('dead', { queue: name }), true);
  }
  for (const [name, queue] of queues) {
    if (queue.paused) {
      add(`Queue ${name} is paused${queue.pending ? `, ${count(queue.pending)} wait` : ''}`, linkTo('queues'));
    }
  }
  const starting = status.workers.filter(({ ready, leaving }) => !ready && !leaving).length;
  if (starting) add(`${starting} of ${status.workers.length} workers are not ready`, linkTo('workers'));
  if (status.starts_overdue) add(`${count(status.starts_overdue)} workers did not get ready in time`, linkTo('workers'));
  if (status.longest_stall_ms > STALL_MS) {
    add(`The server stood still for ${duration(status.longest_stall_ms)}${status.longest_stall_in ? ` in ${status.longest_stall_in}` : ''}`, linkTo('overview'));
  }
  return found;
}

const CARDS = [['pending', 'Pending'], ['in_flight', 'Running'], ['completed', 'Completed'], ['dead', 'Dead'], ['cancelled', 'Cancelled']];

export function Overview() {
  const { data: status, problem } = usePoll('status');
  const [span, setSpan] = useState(SPANS[0][0]);
  if (!status) return html`<${Trouble} problem=${problem} />`;
  const needs = attention(status);
  return html`
    <h1>Overview</h1>
    <${Trouble} problem=${problem} />
    <ul class="cards">
      ${CARDS.map(([state, name]) => html`<li><a href=${linkTo('jobs', { state })} class=${state}>
        <strong>${count(status[state])}</strong> ${name}</a></li>`)}
    </ul>
    <section aria-labelledby="needs">
      <h2 id="needs">Needs attention</h2>
      ${needs.length ? html`<ul class="needs">
        ${needs.map(({ text, to, bad }) => html`<li class=${bad ? 'bad' : ''}><a href=${to}>${text}</a></li>`)}
      </ul>` : html`<${Empty}>Nothing does.<//>`}
    </section>
    <section aria-labelledby="queues">
      <h2 id="queues">Queues</h2>
      <${QueueTable} queues=${status.queues} />
    </section>
    <section aria-labelledby="rates">
      <h2 id="rates">Jobs a second</h2>
      <p class="spans" role="group" aria-label="Span of the chart">
        ${SPANS.map(([ms, name]) => html`<button type="button" aria-pressed=${String(ms === span)} onClick=${() => setSpan(ms)}>${name}</button>`)}
      </p>
      <${Throughput} key=${span} span=${span} />
    </section>`;
}

function Throughput({ span }) {
  const step = span / POINTS;
  const { data, problem } = usePoll('throughput', Math.min(60e3, Math.max(2000, step)), { step });
  if (!data) return html`<${Trouble} problem=${problem} />`;
  return html`<${Chart} title="Since the server started" ...${pointsOf(data, span)} />`;
}

/** Returns the rates of every step that is over, at its end; 0 where nothing happened. */
export function pointsOf({ since_ms, until_ms, step_ms, steps }, span) {
  const names = ['enqueued', 'completed', 'failed'];
  const counts = new Map(steps.map((step) => [step.at_ms, step]));
  const points = [];
  for (let at = since_ms; at + step_ms <= until_ms; at += step_ms) {
    if (at + step_ms < until_ms - span) continue;
    const found = counts.get(at);
    const rate = (name) => [name, (found?.[name] ?? 0) / (step_ms / 1000)];
    points.push({ at: at + step_ms, values: Object.fromEntries(names.map(rate)) });
  }
  return { points, names, span };
}

export function QueueTable({ queues }) {
  const names = Object.keys(queues).sort();
  if (!names.length) return html`<${Empty}>No queue has had a job yet.<//>`;
  return html`<div class="wide" tabindex="0"><table>
    <thead><tr><th>Queue</th><th class="number">Pending</th><th class="number">Oldest</th><th class="number">Running</th>
      <th class="number">Completed</th><th class="number">Dead</th></tr></thead>
    <tbody>${names.map((name) => {
      const queue = queues[name];
      const to = (state) => html`<a href=${linkTo('jobs', { queue: name, state })}>${count(queue[state])}</a>`;
      return html`<tr key=${name}>
        <th scope="row">${name} ${queue.paused && html`<span class="state paused">paused</span>`}</th>
        <td class="number">${to('pending')}</td>
        <td class="number">${queue.oldest_pending_ms ? duration(queue.oldest_pending_ms) : ''}</td>
        <td class="number">${to('in_flight')}</td>
        <td class="number">${to('completed')}</td>
        <td class="number ${queue.dead ? 'bad' : ''}">${to('dead')}</td>
      </tr>`;
    })}</tbody></table></div>`;
}
