// Dead jobs, grouped by task and error, with one action for each group.

import { useEffect, useState } from 'preact/hooks';

import { get } from './api.js';
import { ACTIONS, bulk, Progress } from './jobs.js';
import { count, Dialog, Empty, html, linkTo, Time, Trouble, useAction } from './parts.js';

const PAGE = 1000;
const LOOKED_MAX = 10000;

const firstLine = (error) => error.split('\n', 1)[0];

/** Groups dead jobs: `{task, error, jobs, last_ms}`, the largest first. */
export function groupsOf(jobs) {
  const groups = new Map();
  for (const job of jobs) {
    const error = firstLine(job.error ?? '') || job.cause || '';
    const key = JSON.stringify([job.task, error]);
    const group = groups.get(key) ?? { key, task: job.task, error, told: Boolean(job.error), jobs: 0, last_ms: 0 };
    group.jobs += 1;
    group.last_ms = Math.max(group.last_ms, job.ended_ms ?? 0);
    groups.set(key, group);
  }
  return [...groups.values()].sort((a, b) => b.jobs - a.jobs);
}

/** What a bulk action and the list take to find a group. */
const whereOf = (group, queue) => ({
  state: 'dead', task: group.task, ...(queue ? { queue } : {}), ...(group.told ? { text: group.error } : {}),
});

export function Dead({ params, may, tell }) {
  const { queue = '' } = params;
  const [found, setFound] = useState(null);
  const [problem, setProblem] = useState(null);
  const [turn, setTurn] = useState(0);
  useEffect(() => {
    const control = new AbortController();
    (async () => {
      try {
        const jobs = [];
        let cursor = '';
        do {
          const page = await get('jobs', { state: 'dead', queue, limit: PAGE, cursor }, control.signal);
          // Payloads and results are not needed here, and may be large.
          jobs.push(...page.jobs.map(({ task, error, cause, ended_ms }) => ({ task, error: firstLine(error ?? ''), cause, ended_ms })));
          cursor = page.cursor;
        } while (cursor !== null && jobs.length < LOOKED_MAX);
        setFound({ groups: groupsOf(jobs), jobs: jobs.length, more: cursor !== null });
        setProblem(null);
      } catch (trouble) {
        if (trouble.name !== 'AbortError') setProblem(trouble);
      }
    })();
    return () => control.abort();
  }, [queue, turn]);
  return html`
    <h1>Dead letters${queue && ` of ${queue}`}</h1>
    <${Trouble} problem=${problem} />
    ${found && (found.groups.length ? html`
      <p>${count(found.jobs)} dead jobs${found.more ? ' were looked at, and there are more' : ''}, in ${count(found.groups.length)} groups.</p>
      <div class="wide" tabindex="0"><table><thead><tr><th>Task</th><th>Error</th><th class="number">Jobs</th><th>Last</th>${may.operate && html`<th>Actions</th>`}</tr></thead>
        <tbody>${found.groups.map((group) => html`<${Group} key=${group.key} ...${{ group, queue, may, tell }} again=${() => setTurn((n) => n + 1)} />`)}</tbody>
      </table></div>` : html`<${Empty}>No job is dead.<//>`)}`;
}

function Group({ group, queue, may, tell, again }) {
  const [asked, setAsked] = useState('');
  const [progress, setProgress] = useState(null);
  const [busy, run] = useAction(tell);
  const where = whereOf(group, queue);
  const carryOut = async () => {
    const action = asked;
    setAsked('');
    await bulk(action, where, setProgress, run, tell);
    setProgress(null);
    again();
  };
  return html`<tr>
    <th scope="row">${group.task}</th>
    <td class="error"><a href=${linkTo('jobs', where)}>${group.error}</a></td>
    <td class="number">${count(group.jobs)}</td>
    <td><${Time} ms=${group.last_ms} /></td>
    ${may.operate && html`<td class="buttons">
      ${['retry', 'discard'].map((action) => html`<button type="button" disabled=${busy || progress}
        aria-label=${`${ACTIONS[action].name} all of ${group.task}: ${group.error}`} onClick=${() => setAsked(action)}>${ACTIONS[action].name} all</button>`)}
      ${progress && html`<${Progress} ...${progress} />`}
      ${asked && html`<${Dialog} title=${`${ACTIONS[asked].name} all of this group`} action=${`${ACTIONS[asked].name} all`} bad=${asked === 'discard'}
        onCancel=${() => setAsked('')} onConfirm=${carryOut}>
        <p>About ${count(group.jobs)} jobs ${ACTIONS[asked].says}.</p><//>`}
    </td>`}
  </tr>`;
}
