// The page: asks for what is new, and shows the view that the address names.

import { Batch } from './batches.js';
import { element, setText } from './dom.js';
import { Graph } from './graph.js';
import { Overview } from './overview.js';
import { DeadLetters, Partitions } from './partitions.js';

/** Between two questions: as long as a batch, within these. */
const PAUSE_MIN_MS = 1_000;
const PAUSE_MAX_MS = 2_000;
/** A question that has no answer by then has none. */
const ANSWER_MAX_MS = 10_000;

const main = document.getElementById('main');
const status = document.getElementById('status');

/** What is known: the last overview, and the points of all completed batches that are kept. */
let model = null;
let view = null;
let timer = null;
let asking = false;

/** An answer of the API; `null` where there is no such thing, if that may be. */
async function api(path, mayBeMissing = false) {
  const response = await fetch(`api/v1/${path}`, { cache: 'no-store', signal: AbortSignal.timeout(ANSWER_MAX_MS) });
  if (response.status === 404 && mayBeMissing) return null;
  if (!response.ok) throw new Error(`the answer has status ${response.status}`);
  return response.json();
}

/** Adds what is new to what is known; another process's numbers are all new. */
function merge(now) {
  if (!model || model.now.processStartMs !== now.processStartMs) return { now, points: now.points };
  const { points } = model;
  for (const [name, column] of Object.entries(now.points)) {
    if (name === 'streamRecords') column.forEach((records, at) => (points[name][at] ??= []).push(...records));
    else points[name].push(...column);
  }
  const gone = points.batchSeq.length - now.retainedCompletedBatches;
  if (gone > 0) {
    for (const [name, column] of Object.entries(points)) {
      if (name === 'streamRecords') column.forEach((records) => records.splice(0, gone));
      else column.splice(0, gone);
    }
  }
  return { now, points };
}

async function ask() {
  const after = model?.points.batchSeq.at(-1) ?? 0;
  let now = await api(`overview?after=${after}`);
  // A process that began since has other batches under the numbers that are known, or fewer.
  if (model && model.now.processStartMs !== now.processStartMs) now = await api('overview');
  model = merge(now);
}

function told(text, kind) {
  setText(status, text);
  status.className = `status ${kind}`;
}

async function turn() {
  if (asking) return;
  asking = true;
  clearTimeout(timer);
  try {
    await ask();
    const { now } = model;
    setText(document.getElementById('application'), now.application);
    setText(document.getElementById('version'), `directstream ${now.version}`);
    const kind = { running: 'good', failed: 'bad' }[now.status] ?? 'wait';
    told(now.failureKind ? `${now.status}: ${now.failureKind}` : now.status, kind);
    document.title = `${view.title} - ${now.application}`;
    const shown = view;
    await shown.update(model);
    shown.node.dataset.shown = 'yes';
    performance.mark('shown');
  } catch (error) {
    told(error instanceof TypeError || error.name === 'TimeoutError'
      ? 'no answer: the process has ended, or the network is away' : `no answer: ${error.message}`, 'bad');
  } finally {
    asking = false;
    // Nobody looks at a page that is hidden.
    const pause = Math.min(PAUSE_MAX_MS, Math.max(PAUSE_MIN_MS, model?.now.batchIntervalMs ?? 0));
    if (!document.hidden) timer = setTimeout(turn, pause);
  }
}

const VIEWS = [
  [/^#\/partitions$/, () => new Partitions(api)],
  [/^#\/job$/, () => new Graph(api)],
  [/^#\/dead-letters$/, () => new DeadLetters(api)],
  [/^#\/batch\/?(.*)$/, (found) => new Batch(api, found[1])],
  [/^(#\/)?$/, () => new Overview(api)],
];

function show(moved) {
  const hash = location.hash;
  const [found, make] = VIEWS.map(([pattern, make]) => [pattern.exec(hash), make]).find(([found]) => found) ?? [];
  view = make ? make(found) : {
    title: 'Not found', update() {},
    node: element('div', {}, element('h2', { tabindex: '-1' }, 'There is no such view'), element('p', {}, element('a', { href: '#/' }, 'All batches'))),
  };
  main.replaceChildren(view.node);
  for (const link of document.querySelectorAll('#views a')) {
    const here = link.getAttribute('href') === (hash || '#/') || (hash.startsWith('#/batch') && link.hash === '#/');
    if (here) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
  }
  if (moved) {
    window.scrollTo(0, 0);
    main.querySelector('h2')?.focus({ preventScroll: true });
  }
  again();
}

/** A question now, or right after the one that is under way. */
async function again() {
  clearTimeout(timer);
  while (asking) await new Promise((done) => setTimeout(done, 20));
  await turn();
}

/** The theme: the system's, unless somebody chose. */
function themed() {
  const select = document.getElementById('theme');
  const apply = (theme) => {
    if (theme === 'system') delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    select.value = theme;
  };
  // A browser may refuse to remember anything.
  const remembered = (work) => {
    try {
      return work();
    } catch {
      return null;
    }
  };
  const kept = remembered(() => localStorage.getItem('theme'));
  apply(['light', 'dark'].includes(kept) ? kept : 'system');
  select.addEventListener('change', () => {
    apply(select.value);
    remembered(() => localStorage.setItem('theme', select.value));
  });
}

document.getElementById('skip').addEventListener('click', (event) => {
  // The address names the view.
  event.preventDefault();
  main.focus();
});
window.addEventListener('hashchange', () => show(true));
document.addEventListener('visibilitychange', () => (document.hidden ? clearTimeout(timer) : again()));
themed();
show(false);
