// Outlines of labelled pixels of a slice, as closed paths along the pixels' edges, so that they can be dashed.

// pixels: Map from a number (j * width + i) to a label. Returns a Path2D for each label, and where to put its number.
export function outlines (pixels, width) {
  const edges = new Map()
  const places = new Map()
  const add = (label, x0, y0, x1, y1) => {
    if (!edges.has(label)) edges.set(label, new Map())
    const from = y0 * (width + 1) + x0
    const own = edges.get(label)
    if (!own.has(from)) own.set(from, [])
    own.get(from).push(y1 * (width + 1) + x1)
  }
  for (const [at, label] of pixels) {
    const j = Math.floor(at / width)
    const i = at - j * width
    if (pixels.get(at - width) !== label) add(label, i, j, i + 1, j)
    if (i + 1 >= width || pixels.get(at + 1) !== label) add(label, i + 1, j, i + 1, j + 1)
    if (pixels.get(at + width) !== label) add(label, i + 1, j + 1, i, j + 1)
    if (i === 0 || pixels.get(at - 1) !== label) add(label, i, j + 1, i, j)
    const place = places.get(label)
    if (!place || j < place[1] || (j === place[1] && i > place[0])) places.set(label, [i + 1, j])
  }
  const found = new Map()
  for (const [label, own] of edges) found.set(label, { path: traced(own, width + 1), place: places.get(label) })
  return found
}

function traced (edges, stride) {
  const path = new Path2D()
  for (const [start, ends] of edges) {
    while (ends.length) {
      path.moveTo(start % stride, Math.floor(start / stride))
      let at = ends.pop()
      while (at !== start) {
        path.lineTo(at % stride, Math.floor(at / stride))
        at = edges.get(at).pop()
      }
      path.closePath()
    }
  }
  return path
}
