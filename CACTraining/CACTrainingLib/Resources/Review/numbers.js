// The numbers beside the images: headline, warnings, totals, and the list of lesions.

import { byId, element, interval, number } from '/static/common.js'

// chosen: ids of lesions. consensus: whether readers decide on what they disagreed on. choose: is told the lesion that
// is clicked on.
export function drawNumbers (state, method, chosen, consensus, choose) {
  const own = state.methods[method]
  const { total } = own
  byId('status').textContent = consensus && own.status !== 'reviewed' ? 'consensus, to be decided' : own.status_words
  const category = state.categories
  const risk = category && method === 'threshold' ? `, risk class ${category.risk_class}, CAC-DRS ${category.cac_drs}` : ''
  const range = total.interval_90 ? ` (90 % interval ${interval(total.interval_90)})` : ''
  byId('headline').textContent = own.no_calcium ? 'No coronary calcium: reviewed score of 0' : `${own.score_title} ${number(total.clinical_agatston)}${range}${risk}`
  byId('score-title').textContent = own.score_title
  byId('reviewed').setAttribute('aria-pressed', String(own.status === 'reviewed'))
  byId('undo').disabled = !state.can_undo
  byId('redo').disabled = !state.can_redo
  byId('warnings').replaceChildren(...state.warnings.map(warning => element('li', { class: warning.severe ? 'severe' : null }, warning.message)))
  drawTotals(state, method)
  byId('lesions').tBodies[0].replaceChildren(...own.lesions.map(lesion => lesionRow(state, method, lesion, chosen.has(lesion.id), choose)))
  const row = byId('lesions').querySelector('tr.chosen')
  // Only within the list: on a small screen the page stays where it is.
  const list = byId('lesions').parentElement
  if (row && (row.offsetTop < list.scrollTop + 30 || row.offsetTop + 30 > list.scrollTop + list.clientHeight)) list.scrollTop = row.offsetTop - 60
}

function drawTotals (state, method) {
  const cells = (name, score, kind, swatch) => element('tr', { class: kind },
    element('td', {}, swatch ? site(swatch, name) : name), cell(String(score.lesions)), cell(number(score.clinical_agatston)),
    element('td', {}, interval(score.interval_90)), cell(number(score.volume_mm3)), cell(number(score.mass_mg, 2)))
  const { arteries, total } = state.methods[method]
  const rows = Object.entries(arteries).filter(([, score], n) => n < 4 || score.lesions).map(([name, score]) =>
    cells(name, score, null, state.sites.find(known => known.name === name)))
  rows.push(cells('total', total, 'total'))
  const elsewhere = method === 'threshold' ? state.non_coronary || {} : {}
  for (const [name, score] of Object.entries(elsewhere)) if (score.lesions) rows.push(cells(name, score, null, state.sites.find(known => known.full_name === name)))
  byId('totals').tBodies[0].replaceChildren(...rows)
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
  const name = undecided ? 'to be decided' : lesion.left_out !== null ? 'left out' : lesion.site_name + (lesion.suggested ? '?' : '')
  const button = element('button', { 'aria-pressed': String(isChosen) }, String(lesion.id))
  const row = element('tr', { class: [isChosen && 'chosen', lesion.left_out !== null && 'left-out'].filter(Boolean).join(' ') || null, title: lesion.left_out },
    element('td', {}, button), element('td', {}, site(known, name)),
    element('td', {}, lesion.slices[0] === lesion.slices[1] ? String(lesion.slices[0]) : lesion.slices.join('–')),
    cell(number(lesion.weighted_area_mm2)), cell(number(lesion.volume_mm3)), cell(number(lesion.mass_mg, 2)),
    cell(withError(lesion.integrated_mass_mg, lesion.mass_standard_error_mg)),
    cell(number(lesion.peak_hu, 0)), cell(lesion.probability === null ? '–' : `${Math.round(lesion.probability * 100)} %`))
  row.addEventListener('click', () => choose(lesion.id))
  return row
}

function withError (mass, error) {
  return error === null ? number(mass) : `${number(mass)} ± ${number(error)}`
}
