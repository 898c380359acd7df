// The status page: draws what the feed tells.

import { Facts, arrange, element, say, set, show } from './dom.js';
import { Feed } from './feed.js';
import { against, state } from './parts.js';
import { Plot } from './plot.js';
import { Table } from './table.js';
import { NOTHING, ago, bytes, count, duration, foreign, latency, percent, rate, throughput, words } from './text.js';

const $ = (id) => document.getElementById(id);
const sum = (counts) => Object.values(counts ?? {}).reduce((all, some) => all + some, 0);

/* What is where. */

const tiles = document.querySelector('#traffic .tiles');
const plots = {
  connections: new Plot(tiles, 'TCP connections', ['open'], count, 10),
  sessions: new Plot(tiles, 'UDP sessions', ['open'], count, 10),
  throughput: new Plot(tiles, 'Throughput', ['from clients', 'to clients'], throughput, 1000),
  refused: new Plot(tiles, 'Refused', ['a second'], rate, 1),
};
const share = new Plot($('plane').parentElement, 'Packets forwarded by the kernel', ['share'], (value) => `${Math.round(value)} %`, 100);

const name = { name: 'Name', text: (row) => foreign(row.name), sort: (row) => row.name };
const listeners = new Table($('listeners'), {
  caption: 'Listeners against their limits', empty: 'There are no listeners.', filter: 'Filter listeners',
  columns: [
    name,
    { name: 'Addresses', fill: addresses },
    { name: 'Rules', number: true, text: (row) => count(row.rules), sort: (row) => row.rules },
    { name: 'TCP connections', number: true, fill: (cell, row) => bounded(cell, row.connections), sort: (row) => row.connections?.active },
    { name: 'New/s', number: true, about: 'TCP connections accepted a second', text: (row) => rate(row.accepted), sort: (row) => row.accepted },
    { name: 'UDP sessions', number: true, fill: (cell, row) => bounded(cell, row.sessions), sort: (row) => row.sessions?.active },
    { name: 'New/s', number: true, about: 'UDP sessions begun a second', text: (row) => rate(row.begun), sort: (row) => row.begun },
  ],
});

const carried = [
  { name: 'New/s', number: true, about: 'Connections or sessions that get a backend, a second', text: (row) => rate(row.new), sort: (row) => row.new },
  { name: 'From clients', number: true, text: (row) => throughput(row.up), sort: (row) => row.up },
  { name: 'To clients', number: true, text: (row) => throughput(row.down), sort: (row) => row.down },
];
const rules = new Table($('rules'), {
  caption: 'Rules and what they carry', empty: 'There are no rules.', filter: 'Filter rules', by: 2, descending: true,
  columns: [
    { ...name, name: 'Rule' },
    { name: 'Protocol', text: (row) => (row.protocol === 'any' ? `any ${row.transport}` : words(row.protocol)), sort: (row) => row.protocol },
    { name: 'Active', number: true, about: 'Connections or sessions now', fill: (cell, row) => against(cell, row.active, row.max), sort: (row) => row.active },
    ...carried,
    { name: 'Served', number: true, about: 'Connections or sessions that got a backend', text: (row) => count(row.started), sort: (row) => row.started },
    { name: 'Refused', number: true, about: 'Turned away after the rule was chosen', fill: refusals, sort: (row) => row.refusals },
    { name: 'Listeners', text: (row) => foreign(row.listeners.join(', ')), sort: (row) => row.listeners.join(', ') },
  ],
});

const KINDS = { up: ['good', 0], down: ['bad', 3], drained: ['warn', 2], off: ['off', 1] };
const targets = new Table($('targets'), {
  caption: 'Targets, their health and their times', empty: 'There are no targets.', filter: 'Filter targets', by: 2, descending: true,
  columns: [
    { name: 'Target', fill: target, sort: (row) => row.target },
    { name: 'Over', about: 'The transport', text: (row) => row.transport, sort: (row) => row.transport },
    { name: 'State', fill: (cell, row) => state(cell, row.kind, words(row.state), row.why), sort: (row) => row.severity },
    { name: 'Rule', text: (row) => (row.rule === null ? 'default' : foreign(row.rule)), sort: (row) => row.rule ?? '' },
    { name: 'Active', number: true, fill: (cell, row) => against(cell, row.active, row.max), sort: (row) => row.active },
    ...carried.slice(0, 1),
    { name: 'Connect', number: true, about: 'Median and 99th percentile of the time that a TCP connection to it takes, since the start', text: (row) => times(row.connect), sort: (row) => row.connect?.p50_us },
    { name: 'First byte', number: true, about: 'The same of the time from then to its first byte', text: (row) => times(row.first_byte), sort: (row) => row.first_byte?.p50_us },
    { name: 'Failures', number: true, about: 'Connections or sessions that failed to reach it, since the start', text: (row) => count(row.failures), sort: (row) => row.failures },
    { name: 'Checks', about: 'Those that passed, of all since the start', text: (row) => checks(row.check) },
    ...carried.slice(1),
  ],
});

const counted = (parent, caption, first, empty) => new Table($(parent), {
  caption, empty, by: 1, descending: true,
  columns: [
    { name: first, text: (row) => words(row.name), sort: (row) => row.name },
    { name: 'Total', number: true, text: (row) => count(row.count), sort: (row) => row.count },
    { name: 'A second', number: true, text: (row) => rate(row.rate), sort: (row) => row.rate },
  ],
});
const reasons = counted('reasons', 'Refusals by reason', 'Reason', 'Nothing has been refused.');
const outcomes = counted('outcomes', 'Packets that the kernel programs have seen, by outcome', 'Outcome', 'No packets have been seen.');
const unsteered = counted('unsteered', 'Sessions that the kernel did not take, by reason', 'Reason', 'None.');
const latest = new Table($('latest'), {
  caption: 'Latest refusals', first: 10, empty: 'None that the access log would tell of.',
  columns: [
    { name: 'When', text: (row) => ago(row.age_ms / 1000) },
    { name: 'Reason', text: (row) => words(row.reason) },
    { name: 'Server name', fill: serverName },
    { name: 'Client', text: (row) => foreign(row.source) },
    { name: 'Protocol', text: (row) => foreign(row.proto) },
    { name: 'Listener', text: (row) => foreign(row.listener) },
  ],
});
const bans = new Table($('bans'), {
  caption: 'Networks that are refused', empty: 'No network is banned.', filter: 'Filter bans',
  columns: [
    { name: 'Network', text: (row) => foreign(row.network), sort: (row) => row.network },
    { name: 'By', text: (row) => words(row.source), sort: (row) => row.source },
  ],
});
const drained = new Table($('drained'), {
  caption: 'Targets that get nothing new', empty: 'No target is drained.',
  columns: [
    { name: 'Target', text: (row) => `${foreign(row.target)} (${row.transport})` },
    { name: 'Active', number: true, text: (row) => count(row.active) },
    { name: 'For', number: true, text: (row) => duration(row.since_s) },
  ],
});
const plane = new Facts($('plane'));
const file = new Facts($('file'));
const resources = new Facts($('resources'));

/* Cells. */

/** Addresses that are named; the others are counted. */
const MOST_ADDRESSES = 4;

function addresses(cell, row) {
  const transports = new Map();
  for (const transport of ['tcp', 'udp']) {
    for (const address of row[transport]) transports.set(address, [...transports.get(address) ?? [], transport]);
  }
  const all = [...transports].map(([address, by]) => `${foreign(address)} ${by.join('+')}`);
  const named = all.length > MOST_ADDRESSES + 1 ? all.slice(0, MOST_ADDRESSES) : all;
  const lines = named.length < all.length ? [...named, `and ${count(all.length - named.length)} more`] : named;
  set(cell, 'class', 'lines');
  set(cell, 'title', named.length < all.length ? all.join('\n') : null);
  say(cell, lines.join('\n') || 'closed');
}

function bounded(cell, of) {
  if (of) against(cell, of.active, of.max);
  else if (!cell.firstChild) say(cell, NOTHING);
}

function refusals(cell, row) {
  say(cell, count(row.refusals));
  const told = Object.entries(row.refused).map(([reason, number]) => `${words(reason)}: ${count(number)}`).join('\n');
  set(cell, 'title', told || null);
}

function target(cell, row) {
  const notes = [row.backup && 'backup', row.weight > 1 && `weight ${row.weight}`].filter(Boolean).join(', ');
  if (!cell.firstChild) cell.append(element('span'), ' ', element('span', { class: 'quiet' }));
  say(cell.firstChild, foreign(row.target));
  say(cell.lastChild, notes);
}

function serverName(cell, row) {
  set(cell, 'class', row.server_name ? 'foreign' : 'quiet');
  say(cell, row.server_name ? foreign(row.server_name) : 'none');
}

function checks(check) {
  return check ? `${foreign(check.name)} ${count(check.passed)} / ${count(check.passed + check.failed)}` : NOTHING;
}

function times(of) {
  return of && of.count > 0 ? `${latency(of.p50_us)}, ${latency(of.p99_us)}` : NOTHING;
}

/* The whole. */

/** Rows with keys that are theirs alone, whatever comes twice. */
function keyed(rows, key) {
  const seen = new Map();
  return rows.map((row) => {
    const name = key(row);
    const before = seen.get(name) ?? 0;
    seen.set(name, before + 1);
    return { ...row, key: before ? `${name}\n${before}` : name };
  });
}

function byKey(rows, key) {
  return new Map((rows ?? []).map((row) => [key(row), row]));
}

function countedRows(counts, before, rates) {
  const known = before ?? {};
  return Object.entries(counts).map(([name, number]) => ({
    key: name, name, search: name, count: number, rate: rates.of(number, rates.before ? known[name] ?? 0 : undefined),
  }));
}

function traffic(overview, history, rates) {
  const at = Object.fromEntries(history.fields.map((field, index) => [field, index]));
  const { samples } = history;
  const age = (sample) => (overview.uptime_ms - sample[at.uptime_ms]) / 1000;
  const levels = (field) => samples.map((sample) => ({ age: age(sample), values: [sample[at[field]]] }));
  const changes = (...fields) => samples.slice(1).map((sample, index) => {
    const before = samples[index];
    const seconds = (sample[at.uptime_ms] - before[at.uptime_ms]) / 1000;
    return { age: age(sample), values: fields.map((field) => Math.max(0, sample[at[field]] - before[at[field]]) / Math.max(1, seconds)) };
  });
  const { before } = rates;
  const of = (of) => rates.of(of(overview), before && of(before));
  const { tcp, udp } = overview;
  plots.connections.update(levels('connections'), count(tcp.active),
    `of ${count(Math.min(tcp.max, tcp.room || tcp.max))}, ${rate(of((o) => o.tcp.accepted))} new a second`);
  plots.sessions.update(levels('sessions'), count(udp.active),
    `of ${count(udp.max)}, ${rate(of((o) => o.udp.started))} new a second`);
  const flow = changes('bytes_up', 'bytes_down');
  const payload = (field) => of((o) => o.rules.reduce((all, rule) => all + rule[field], 0));
  const [up, down] = [payload('bytes_up'), payload('bytes_down')];
  plots.throughput.update(flow, up === null ? NOTHING : throughput(up + down),
    `${throughput(up)} from clients, ${throughput(down)} to clients`);
  const refusedOf = (o) => sum(o.tcp.refused) + sum(o.udp.refused);
  const perSecond = of(refusedOf);
  plots.refused.update(changes('refused'), perSecond === null ? NOTHING : `${rate(perSecond)}/s`,
    `${count(refusedOf(overview))} since the start`);
  const shares = changes('relayed', 'steered').map(({ age: when, values: [relayed, steered] }) =>
    ({ age: when, values: [relayed + steered > 0 ? (100 * steered) / (relayed + steered) : 0] }));
  const on = overview.kernel_plane.flows !== null;
  show(share.figure, on);
  const [first, last] = [samples[Math.max(0, samples.length - 13)], samples.at(-1)];
  const moved = (field) => (first && last ? Math.max(0, last[at[field]] - first[at[field]]) : 0);
  share.update(on ? shares : [], percent(moved('steered'), moved('steered') + moved('relayed')), 'in the last minute');
}

function tables(overview, rates) {
  const { before } = rates;
  const ofListener = (row) => row.name;
  const oldListeners = byKey(before?.listeners, ofListener);
  listeners.update(keyed(overview.listeners.map((row) => {
    const old = oldListeners.get(row.name);
    return {
      ...row, search: `${row.name} ${row.tcp.join(' ')} ${row.udp.join(' ')}`.toLowerCase(),
      accepted: row.connections ? rates.of(row.connections.started, old?.connections?.started) : null,
      begun: row.sessions ? rates.of(row.sessions.started, old?.sessions?.started) : null,
    };
  }), ofListener));

  const ofRule = (row) => `${row.transport} ${row.name}`;
  const oldRules = byKey(before?.rules, ofRule);
  const growth = (row, old) => ({
    new: rates.of(row.started, old?.started), up: rates.of(row.bytes_up, old?.bytes_up), down: rates.of(row.bytes_down, old?.bytes_down),
  });
  rules.update(keyed(overview.rules.map((row) => ({
    ...row, ...growth(row, oldRules.get(ofRule(row))), refusals: sum(row.refused),
    search: `${row.name} ${row.protocol} ${row.transport} ${row.listeners.join(' ')}`.toLowerCase(),
  })), ofRule));

  const ofTarget = (row) => `${row.transport} ${row.rule} ${row.target}`;
  const oldTargets = byKey(before?.targets, ofTarget);
  targets.update(keyed(overview.targets.map((row) => {
    const [kind, severity] = KINDS[row.state] ?? ['off', 1];
    const since = row.since_ms === null || row.since_ms === undefined ? null : `for ${duration(row.since_ms / 1000)}`;
    return {
      ...row, ...growth(row, oldTargets.get(ofTarget(row))), kind, severity,
      why: row.state === 'up' ? '' : [row.reason && foreign(row.reason), since].filter(Boolean).join(', '),
      search: `${row.target} ${row.rule ?? 'default'} ${row.state} ${row.transport}`.toLowerCase(),
    };
  }), ofTarget));

  const refused = (o) => {
    const all = { ...o?.tcp.refused };
    for (const [reason, number] of Object.entries(o?.udp.refused ?? {})) all[reason] = (all[reason] ?? 0) + number;
    return all;
  };
  reasons.update(countedRows(refused(overview), refused(before), rates));
  latest.update(keyed(overview.refused, (row) => `${row.source} ${row.listener} ${row.reason} ${row.server_name}`));
  const kernel = overview.kernel_plane;
  outcomes.update(countedRows(kernel.counters, before?.kernel_plane.counters, rates));
  unsteered.update(countedRows(kernel.not_steered, before?.kernel_plane.not_steered, rates));
  bans.update(overview.bans.first.map((row) => ({ ...row, key: row.network, search: row.network })));
  say($('banned'), overview.bans.count > overview.bans.first.length
    ? `${count(overview.bans.count)}, the first ${count(overview.bans.first.length)} shown` : count(overview.bans.count));
  drained.update(keyed(overview.drained.targets, (row) => `${row.transport} ${row.target}`));
}

function facts(overview, rates) {
  const { config, kernel_plane: kernel, process } = overview;
  const reload = config.last_reload;
  const on = kernel.flows !== null;
  plane.update([
    ['State', on ? `on, ${foreign(kernel.state)}` : 'off'],
    ['Why', kernel.reason && foreign(kernel.reason)],
    ['Interfaces', kernel.interfaces.length > 0 ? foreign(kernel.interfaces.join(', ')) : null],
    ['Sessions', on ? `${count(kernel.flows)} of ${count(kernel.max_flows)}, ${percent(kernel.flows, overview.udp.active)} of all` : null],
  ]);
  file.update([
    ['File', foreign(config.path)],
    ['State', config.state === 'refused' ? 'refused: what it said before is in effect' : 'in effect'],
    ['Last reload', reload ? `${words(reload.result)} ${ago(reload.age_s)} (${foreign(reload.time)})` : 'none since the start'],
    ['Rules', count(overview.rules.length)],
    ['Workers', count(overview.workers)],
    ['Listeners', overview.drained.listeners_s === null ? null : `drained for ${duration(overview.drained.listeners_s)}`],
  ]);
  arrange($('problems'), (reload?.problems ?? []).map((problem) => element('li', {}, foreign(problem))));
  const cpu = rates.of(process.cpu_ms, rates.before?.process.cpu_ms);
  resources.update([
    ['Processor', cpu === null ? NOTHING : percent(cpu / 1000, 1)],
    ['Memory', bytes(process.resident_bytes)],
    ['Open files', `${count(process.open_files)} of ${count(process.max_open_files)}`],
    ['Datagrams without room', count(overview.udp.kernel_drops)],
    ['Failed connects', count(overview.tcp.connect_failed)],
    ['Failed look-ups of names', count(overview.dns_failed)],
    ['Log lines lost', count(overview.log_lines_lost)],
  ]);
}

/** What somebody should look at, each as `[id, kind, text, section]`. */
function notices(overview, rates) {
  const found = [];
  const add = (...notice) => found.push(notice);
  const { config, drained: out, process, listeners: all } = overview;
  if (!overview.ready) add('ready', 'bad', `No new traffic is taken: ${words(overview.not_ready ?? 'not ready')}.`, 'listeners');
  if (config.state === 'refused') add('reload', 'bad', 'The last reload was refused. What runs is older than the file.', 'configuration');
  const down = new Set(overview.targets.filter((row) => row.state === 'down').map((row) => `${foreign(row.target)} (${row.transport})`));
  if (down.size > 0) {
    const named = [...down].slice(0, 3).join(', ') + (down.size > 3 ? `, and ${count(down.size - 3)} more` : '');
    add('down', 'bad', `${down.size === 1 ? 'A target is' : `${count(down.size)} targets are`} down: ${named}.`, 'targets');
  }
  for (const listener of all) {
    for (const [what, of] of [['TCP connections', listener.connections], ['UDP sessions', listener.sessions]]) {
      if (of && of.active >= 0.9 * of.max) {
        add(`limit ${what} ${listener.name}`, 'warn', `${foreign(listener.name)} has ${count(of.active)} of ${count(of.max)} ${what}.`, 'listeners');
      }
    }
  }
  if (process.open_files >= 0.9 * process.max_open_files) {
    add('files', 'warn', `${count(process.open_files)} of ${count(process.max_open_files)} files are open.`, 'process');
  }
  const grows = (of) => rates.of(of(overview), rates.before && of(rates.before)) > 0;
  if (grows((o) => o.tcp.accept_paused)) add('paused', 'warn', 'Accepting pauses: descriptors or memory run out.', 'process');
  if (grows((o) => o.udp.kernel_drops)) add('drops', 'warn', 'Datagrams are lost: sockets have no room for them.', 'process');
  if (grows((o) => o.log_lines_lost)) add('lines', 'warn', 'Log lines cannot be written.', 'process');
  if (out.targets.length > 0) add('drained', 'info', `${out.targets.length === 1 ? 'A target is' : `${count(out.targets.length)} targets are`} drained by command.`, 'configuration');
  return found;
}

const noticed = new Map();
function attention(overview, rates) {
  const found = notices(overview, rates);
  const ids = new Set(found.map(([id]) => id));
  for (const id of noticed.keys()) if (!ids.has(id)) noticed.delete(id);
  arrange(document.querySelector('#attention ul'), found.map(([id, kind, text, section]) => {
    const item = noticed.get(id) ?? element('li', {}, element('a', { href: `#${section}` }));
    noticed.set(id, item);
    set(item, 'class', `notice ${kind}`);
    say(item.firstChild, text);
    return item;
  }));
  show($('attention'), found.length > 0);
}

let told = null;
function age() {
  if (told !== null) {
    const seconds = Math.round((Date.now() - told) / 1000);
    set($('updated'), 'class', paused || seconds >= 10 ? null : 'live');
    say($('updated'), paused ? `Paused, ${duration(seconds)} old` : seconds < 10 ? 'Live' : `${duration(seconds)} old`);
  }
}

let paused = false;
const feed = new Feed({
  told(overview, history, rates) {
    told = Date.now();
    show($('login'), false);
    for (const id of ['all', 'sections', 'ready', 'pause']) show($(id), true);
    show($('lost'), false);
    state($('ready'), overview.ready ? 'good' : 'bad', overview.ready ? 'Ready' : 'Not ready', '');
    say($('version'), `version ${foreign(overview.version)}, up ${duration(overview.uptime_ms / 1000)}`);
    say($('pid'), `, pid ${overview.pid}`);
    document.title = `${overview.ready ? '' : '! '}rpxy-l4 ${location.host}`;
    attention(overview, rates);
    traffic(overview, history, rates);
    tables(overview, rates);
    facts(overview, rates);
    document.documentElement.dataset.told = String(Number(document.documentElement.dataset.told ?? 0) + 1);
    age();
  },
  locked(refused) {
    for (const id of ['all', 'sections', 'ready', 'pause']) show($(id), false);
    for (const id of ['version', 'pid', 'updated']) say($(id), '');
    set($('updated'), 'class', null);
    told = null;
    show($('lost'), false);
    show($('login'), true);
    say($('wrong'), refused ? 'This is not the token.' : '');
    $('token').focus();
  },
  lost(text) {
    show($('lost'), true);
    say($('lost'), told === null ? text : `${text} What is shown is ${duration((Date.now() - told) / 1000)} old.`);
  },
});

say($('host'), location.host);
$('login').addEventListener('submit', (event) => {
  event.preventDefault();
  const token = $('token').value.trim();
  $('token').value = '';
  feed.login(token);
});
$('pause').addEventListener('click', () => {
  paused = !paused;
  set($('pause'), 'aria-pressed', paused);
  say($('pause'), paused ? 'Go on' : 'Pause');
  feed.pause(paused);
  age();
});
setInterval(age, 1000);
feed.start();
