// Queues: what waits in each, and pausing, weighing and emptying it.

import { useState } from 'preact/hooks';

import { ask, post } from './api.js';
import { count, Dialog, duration, Empty, html, linkTo, Trouble, useAction, usePoll } from './parts.js';

export function Queues({ may, tell }) {
  const { data, problem, refresh } = usePoll('queues');
  if (!data) return html`<${Trouble} problem=${problem} />`;
  return html`
    <h1>Queues</h1>
    <${Trouble} problem=${problem} />
    ${data.queues.length ? html`<div class="wide" tabindex="0"><table>
      <thead><tr><th>Queue</th><th class="number">Pending</th><th class="number">Oldest</th><th class="number">Running</th>
        <th class="number">Dead</th><th class="number">Weight</th>${may.operate && html`<th>Actions</th>`}</tr></thead>
      <tbody>${data.queues.map((queue) => html`<${Queue} key=${queue.name} ...${{ queue, may, tell, refresh }} />`)}</tbody>
    </table></div>` : html`<${Empty}>No queue has had a job yet.<//>`}`;
}

function Queue({ queue, may, tell, refresh }) {
  const { name } = queue;
  const path = `queues/${encodeURIComponent(name)}`;
  const [busy, run] = useAction(tell);
  const [asked, setAsked] = useState(null);
  const change = async (patch, done) => {
    await run(() => ask('PATCH', path, { body: patch }), done);
    refresh();
  };
  const countJobs = async () => {
    const found = await run(() => post(`${path}/purge`, { dry_run: true }));
    if (found) setAsked({ purge: found.matched });
  };
  const purge = async () => {
    await run(() => post(`${path}/purge`, { dry_run: false }), `Queue ${name} is emptied`);
    setAsked(null);
    refresh();
  };
  const weigh = async () => {
    await change({ weight: Number(asked.weight) }, `Queue ${name} has the weight ${asked.weight}`);
    setAsked(null);
  };
  return html`<tr>
    <th scope="row">${name} ${queue.paused && html`<span class="state paused">paused</span>`}</th>
    <td class="number"><a href=${linkTo('jobs', { queue: name, state: 'pending' })}>${count(queue.pending)}</a></td>
    <td class="number">${queue.oldest_pending_ms ? duration(queue.oldest_pending_ms) : ''}</td>
    <td class="number"><a href=${linkTo('jobs', { queue: name, state: 'in_flight' })}>${count(queue.in_flight)}</a></td>
    <td class="number ${queue.dead ? 'bad' : ''}"><a href=${linkTo('dead', { queue: name })}>${count(queue.dead)}</a></td>
    <td class="number">${queue.weight}</td>
    ${may.operate && html`<td class="buttons">
      <button type="button" disabled=${busy} aria-label=${`${queue.paused ? 'Resume' : 'Pause'} ${name}`}
        onClick=${() => change({ paused: !queue.paused }, `Queue ${name} ${queue.paused ? 'goes on' : 'is paused'}`)}>
        ${queue.paused ? 'Resume' : 'Pause'}</button>
      <button type="button" disabled=${busy} aria-label=${`Set the weight of ${name}`}
        onClick=${() => setAsked({ weight: String(queue.weight) })}>Weight</button>
      <button type="button" disabled=${busy} aria-label=${`Purge ${name}`} onClick=${countJobs}>Purge</button>
      ${asked?.weight !== undefined && html`<${Dialog} title=${`Weight of ${name}`} action="Set weight" busy=${busy}
        onCancel=${() => setAsked(null)} onConfirm=${weigh}>
        <label>Weight, 1 to 1,000 <input type="number" min="1" max="1000" required value=${asked.weight}
          onInput=${(event) => setAsked({ weight: event.target.value })} /></label>
        <p>A queue with twice the weight gets twice the slots where both have jobs that wait.</p><//>`}
      ${asked?.purge !== undefined && html`<${Dialog} title=${`Purge ${name}`} action=${`Remove ${count(asked.purge)} jobs`} bad
        busy=${busy} disabled=${!asked.purge} onCancel=${() => setAsked(null)} onConfirm=${purge}>
        <p>${count(asked.purge)} jobs of this queue are removed for good. Jobs that run go on.</p><//>`}
    </td>`}
  </tr>`;
}
