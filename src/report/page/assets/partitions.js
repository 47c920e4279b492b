// Where each partition stands, and the dead letters by the step that refused them.

import { Facts, Pager, Table, element, setText } from './dom.js';
import { formatNumber, formatRecords } from './format.js';

const PAGE = 100;

export class Partitions {
  constructor(api) {
    Object.assign(this, { api, title: 'Partitions', sort: 'lag', descending: true });
    const offset = (title, name, help) => ({ title, sort: name, number: true, help, cell: (row) => formatNumber(row[name]) });
    this.table = new Table({
      title: 'Partitions', key: (row) => `${row.partition} ${row.topic}`, onSort: (by) => this.#sort(by), columns: [
        { title: 'Topic', sort: 'partition', cell: (row) => row.topic },
        { title: 'Partition', number: true, cell: (row) => row.partition },
        { title: 'Lag', sort: 'lag', number: true, help: 'Latest minus committed offset', cell: (row) => ({
          text: formatNumber(row.lag), share: row.lag === null || !this.most ? 0 : row.lag / this.most,
        }) },
        offset('Committed', 'committed', 'The next offset to read'),
        offset('Latest', 'latest', 'The offset after the last readable record'),
        offset('Earliest', 'earliest', 'The first offset that Kafka still has'),
      ],
    });
    this.facts = new Facts();
    this.search = element('input', { type: 'search', autocomplete: 'off' });
    this.search.addEventListener('input', () => {
      this.pager.from = 0;
      this.#load();
    });
    this.pager = new Pager(PAGE, () => this.#load());
    this.node = element('div', {}, element('h2', { tabindex: '-1' }, 'Lag by partition'), this.facts.node,
      element('label', { class: 'filter' }, 'Topic contains ', this.search), this.table.node, this.pager.node);
  }

  #sort(by) {
    // What is sought is the most of something, but the first topic.
    this.descending = this.sort === by ? !this.descending : by !== 'partition';
    this.sort = by;
    this.pager.from = 0;
    return this.#load();
  }

  update() {
    return this.#load();
  }

  async #load() {
    const asked = new URLSearchParams({
      from: this.pager.from, count: PAGE, sort: this.sort, order: this.descending ? 'desc' : 'asc', topic: this.search.value,
    });
    const turn = (this.turn = (this.turn ?? 0) + 1);
    const page = await this.api(`partitions?${asked}`);
    // Somebody typed on while this answer was on its way.
    if (turn !== this.turn) return;
    this.most = page.partitions.reduce((most, { lag }) => Math.max(most, lag ?? 0), 0);
    this.facts.update([
      ['Lag', formatRecords(page.lag), 'Latest minus committed offset, over all partitions'],
      ['Partitions', formatNumber(page.total)],
    ]);
    this.table.sorted(this.sort, this.descending);
    this.table.update(page.partitions, `Partitions (${formatNumber(page.matching)})`);
    this.pager.update(page.matching);
  }
}

const STAGES = {
  decode: 'the bytes could not be read',
  convert: 'a value did not fit its column',
  write: 'the database refused the row',
  window: 'it came into no window over event time',
};

export class DeadLetters {
  constructor(api) {
    Object.assign(this, { api, title: 'Dead letters' });
    this.sentence = element('p', { class: 'sentence' });
    this.table = new Table({
      title: 'By stage', key: (row) => row.stage, columns: [
        { title: 'Stage', cell: (row) => row.stage },
        { title: 'Records', number: true, cell: (row) => formatNumber(row.records) },
        { title: 'Because', cell: (row) => STAGES[row.stage] ?? '' },
      ],
    });
    const command = (text, what) => element('div', {}, element('dt', {}, what), element('dd', {}, element('code', {}, text)));
    this.node = element('div', {}, element('h2', { tabindex: '-1' }, 'Dead letters'), this.sentence, this.table.node,
      element('h3', {}, 'The letters themselves'),
      element('p', {}, 'They are in the store, with their records whole. These commands read and settle them:'),
      element('dl', { class: 'commands' },
        command('directstream dead-letters list JOB.toml', 'Which they are, and why'),
        command('directstream dead-letters show JOB.toml TOPIC:PARTITION:OFFSET', 'One, with key, value and headers'),
        command('directstream dead-letters replay JOB.toml --all', 'Into the tables after all; a dry run unless --execute'),
        command('directstream dead-letters discard JOB.toml --all', 'Deleted for good; a dry run unless --execute')));
  }

  async update() {
    const { total, stages, lateRecords } = await this.api('dead-letters');
    setText(this.sentence, `${formatRecords(total)} refused and kept since this process started` +
      `${lateRecords > 0 ? `; ${formatNumber(lateRecords)} came too late for their windows` : ''}.`);
    this.table.update(stages, 'By stage');
  }
}
