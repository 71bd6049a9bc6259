// What mouse, pen and fingers do on a view: scroll, zoom, move, paint, draw the line of a cut, click.

import { active } from '/static/reading_time.js'

const STEP_PIXELS = 40 // of the wheel, for a slice
const TOUCH_PIXELS = 12 // of a finger, for a slice

// to: functions goTo(k), zoom(factor, place), draw(), use(i, j), endStroke(), endLine().
export function listen (view, look, to) {
  const { canvas } = view
  const down = new Map()
  let moved = 0
  let rest = 0
  let scrolled = 0

  function drag (event, dx, dy) {
    const { sx, sy } = view.frame()
    const ratio = canvas.width / canvas.getBoundingClientRect().width
    const move = part => { look.centre = [look.centre[0] - part * dx * ratio / sx, look.centre[1] - part * dy * ratio / sy] }
    if (down.size === 2) {
      const [a, b] = [...down.values()]
      const other = a.pointerId === event.pointerId ? b : a
      const last = down.get(event.pointerId)
      const before = Math.hypot(last.clientX - other.clientX, last.clientY - other.clientY)
      move(0.5) // the other finger moves it by the other half
      to.zoom(Math.hypot(event.clientX - other.clientX, event.clientY - other.clientY) / before, view.placeOf(event))
    } else if (look.stroke.length) look.stroke.push(view.placeOf(event))
    else if (look.tool === 'cut' && look.line) look.line = [look.line[0], view.placeOf(event)]
    else if (event.pointerType === 'touch') {
      scrolled += dy / TOUCH_PIXELS
      const steps = Math.trunc(scrolled)
      scrolled -= steps
      if (steps) to.goTo(look.k - steps)
    } else move(1)
  }

  function end (place, isClick) {
    if (look.stroke.length) return to.endStroke()
    if (look.tool === 'cut') {
      if (look.line && look.line.length === 2) to.endLine()
      else look.line = null
      return to.draw()
    }
    if (isClick) to.use(...place)
  }

  canvas.addEventListener('wheel', event => {
    event.preventDefault()
    active()
    if (event.ctrlKey) return to.zoom(event.deltaY < 0 ? 1.2 : 1 / 1.2, view.placeOf(event))
    rest += event.deltaMode ? event.deltaY * STEP_PIXELS : event.deltaY
    const steps = Math.trunc(rest / STEP_PIXELS)
    rest -= steps * STEP_PIXELS
    if (steps) to.goTo(look.k - steps)
  }, { passive: false })
  canvas.addEventListener('pointerdown', event => {
    active()
    canvas.setPointerCapture(event.pointerId)
    down.set(event.pointerId, event)
    moved = 0
    look.stroke = []
    look.line = null
    if (down.size > 1 || event.button !== 0) return
    if (look.tool === 'brush' || look.tool === 'erase') look.stroke = [view.placeOf(event)]
    if (look.tool === 'cut') look.line = [view.placeOf(event)]
  })
  canvas.addEventListener('pointermove', event => {
    look.cursor = view.placeOf(event)
    const last = down.get(event.pointerId)
    if (last) {
      const [dx, dy] = [event.clientX - last.clientX, event.clientY - last.clientY]
      moved += Math.abs(dx) + Math.abs(dy)
      drag(event, dx, dy)
      down.set(event.pointerId, event)
    }
    to.draw()
  })
  const up = event => {
    if (!down.delete(event.pointerId)) return
    rest = 0
    if (event.type === 'pointerup' && event.button === 0) end(view.placeOf(event), moved < 6)
  }
  canvas.addEventListener('pointerup', up)
  canvas.addEventListener('pointercancel', up)
  canvas.addEventListener('contextmenu', event => event.preventDefault())
}
