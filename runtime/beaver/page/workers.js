// Workers: what each runs, and since when.

import { post } from './api.js';
import { count, duration, Empty, html, linkTo, Trouble, useAction, usePoll } from './parts.js';

const isRemote = (worker) => worker.capacity > 0;

const doing = (worker) => {
  if (worker.leaving) return 'leaving';
  if (worker.draining) return 'draining';
  if (!worker.ready) return 'starting';
  return worker.job || worker.jobs ? 'busy' : 'idle';
};

/** What a worker runs: local ones one job each, remote ones as many as they have room for. */
const running = (worker) => {
  if (isRemote(worker)) return `${count(worker.jobs)} of ${count(worker.capacity)}`;
  return worker.job && html`<a href=${linkTo('job', { rest: worker.job })}>${worker.job}</a>`;
};

export function Workers({ may, tell }) {
  const { data, problem, refresh } = usePoll('workers');
  const [busy, run] = useAction(tell);
  if (!data) return html`<${Trouble} problem=${problem} />`;
  const drain = async (id) => {
    await run(() => post(`workers/${id}/drain`, {}), `Worker ${id} gets no more jobs`);
    refresh();
  };
  const working = data.workers.filter((worker) => doing(worker) === 'busy').length;
  const remote = data.workers.some(isRemote);
  return html`
    <h1>Workers</h1>
    <${Trouble} problem=${problem} />
    <p>${count(working)} of ${count(data.workers.length)} are busy.</p>
    ${data.workers.length ? html`<div class="wide" tabindex="0"><table>
      <thead><tr><th>Worker</th><th>State</th><th>Where</th><th>Runs</th><th class="number">Since</th>
        ${remote && html`<th>Tasks</th><th class="number">Lease left</th>`}${remote && may.operate && html`<th>Actions</th>`}</tr></thead>
      <tbody>${data.workers.map((worker) => html`<tr key=${worker.id}>
        <th scope="row">${worker.name || worker.id}</th>
        <td><span class=${`state ${doing(worker)}`}>${doing(worker)}</span></td>
        <td>${isRemote(worker) ? 'remote' : `process ${worker.pid}`}</td>
        <td>${running(worker)}</td>
        <td class="number">${worker.job ? duration(worker.since_ms) : ''}</td>
        ${remote && html`<td>${worker.tasks?.join(', ')}</td>
          <td class="number">${isRemote(worker) ? duration(worker.lease_ms) : ''}</td>`}
        ${remote && may.operate && html`<td class="buttons">${isRemote(worker) && html`<button type="button" disabled=${busy || worker.draining}
          aria-label=${`Drain worker ${worker.name || worker.id}`} onClick=${() => drain(worker.id)}>Drain</button>`}</td>`}
      </tr>`)}</tbody></table></div>` : html`<${Empty}>No worker is there. <code>beaver run -A module:app</code> starts some.<//>`}`;
}
