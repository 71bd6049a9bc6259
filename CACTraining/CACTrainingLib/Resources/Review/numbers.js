// The numbers beside the images: headline, warnings, table of scores, and the list of lesions.

import { byId, element, number } from '/static/common.js'

// chosen: ids of lesions. consensus: whether readers decide on what they disagreed on. choose: is told the lesion that
// is clicked on.
export function drawNumbers (state, method, chosen, consensus, choose) {
  const own = state.methods[method]
  const head = state.headline
  byId('status').textContent = consensus && own.status !== 'reviewed' ? 'consensus, to be decided' : head.state
  byId('headline').textContent = head.score
  byId('summary').textContent = head.summary
  byId('decision').hidden = !head.decision
  if (head.decision) {
    byId('question').textContent = head.decision.question
    byId('counted').textContent = `Yes: ${head.decision.counted}`
    byId('not-counted').textContent = `No: ${head.decision.rejected}`
  }
  byId('why').textContent = own.lesions.find(lesion => chosen.has(lesion.id))?.why || ''
  byId('warned').hidden = !state.warnings.length
  byId('warned').classList.toggle('severe', Boolean(head.warning?.severe))
  const worst = head.warning || state.warnings[0]
  byId('warning').textContent = worst ? `⚠ ${worst.line}${head.more ? ` ${head.more} more` : ''}` : ''
  const [open, confirm] = method === 'threshold' ? ['Reopen review', 'Confirm score'] : ['Reopen map', 'Confirm map']
  byId('reviewed').textContent = own.status === 'reviewed' ? open : confirm
  const rejected = [...chosen].filter(id => own.lesions.some(lesion => lesion.id === id && lesion.site === state.rejected))
  if (byId('reject')) byId('reject').textContent = chosen.size && rejected.length === chosen.size ? 'Take back' : 'Reject'
  byId('undo').disabled = !state.can_undo
  byId('redo').disabled = !state.can_redo
  byId('warnings').replaceChildren(...state.warnings.map(({ line, why, severe }) => element('li', { class: severe ? 'severe' : null }, element('b', {}, line), ` ${why}`)))
  drawTotals(state)
  byId('lesions').tBodies[0].replaceChildren(...own.lesions.map(lesion => lesionRow(state, method, lesion, chosen.has(lesion.id), choose)))
  const row = byId('lesions').querySelector('tr.chosen')
  // Only within the list: on a small screen the page stays where it is.
  const list = byId('lesions').parentElement
  if (row && (row.offsetTop < list.scrollTop + 30 || row.offsetTop + 30 > list.scrollTop + list.clientHeight)) list.scrollTop = row.offsetTop - 60
}

function drawTotals (state) {
  const { titles, rows } = state.table
  const light = n => titles[n] === 'Map' ? 'number light' : n ? 'number' : null
  byId('totals').tHead.replaceChildren(element('tr', {}, ...titles.map((title, n) => element('th', { scope: 'col', class: light(n) }, title))))
  const line = (name, cells, known, kind) => element('tr', { class: kind },
    element('td', {}, known ? site(known, name) : name), ...cells.map((text, n) => element('td', { class: light(n + 1) }, text)))
  const drawn = rows.map(row => line(row.name, row.cells, row.site && state.sites.find(known => known.label === row.site), row.site ? null : 'total'))
  for (const [name, score] of Object.entries(state.non_coronary)) {
    if (score.lesions) drawn.push(line(name, [number(score.clinical_agatston), number(score.volume_mm3)], state.sites.find(known => known.full_name === name), 'elsewhere'))
  }
  byId('totals').tBodies[0].replaceChildren(...drawn)
}

const cell = text => element('td', { class: 'number' }, text)

export function site (known, text) {
  const swatch = element('span', { class: 'swatch' })
  swatch.style.background = `rgb(${known.colour.join()})`
  return element('span', { class: 'site' }, swatch, text)
}

function lesionRow (state, method, lesion, isChosen, choose) {
  const known = state.sites.find(each => each.label === lesion.site)
  const undecided = state.methods[method].undecided.includes(lesion.id)
  const isRejected = lesion.site === state.rejected
  const name = undecided ? 'to be decided' : lesion.left_out !== null ? 'left out' : lesion.site_name + (lesion.suggested && !isRejected ? '?' : '')
  const button = element('button', { 'aria-pressed': String(isChosen) }, String(lesion.id))
  const row = element('tr', { class: [isChosen && 'chosen', lesion.left_out !== null && 'left-out', isRejected && 'rejected'].filter(Boolean).join(' ') || null, title: lesion.left_out },
    element('td', {}, button), element('td', {}, known ? site(known, name) : name),
    element('td', {}, lesion.slices[0] === lesion.slices[1] ? String(lesion.slices[0]) : lesion.slices.join('–')),
    cell(number(lesion.agatston)), cell(number(lesion.volume_mm3)), cell(massOf(lesion)),
    cell(number(lesion.peak_hu, 0)), cell(lesion.probability === null ? '–' : `${Math.round(lesion.probability * 100)} %`))
  row.addEventListener('click', () => choose(lesion.id))
  return row
}

function massOf ({ integrated_mass_mg: mass, mass_standard_error_mg: error }) {
  if (mass === null) return '–'
  return error === null ? number(mass) : `${number(mass)} ± ${number(error)}`
}
