// Three planes and 3-D, drawn by niivue, which is loaded when they are first asked for.

let library

function loaded () {
  library ||= new Promise((resolve, reject) => {
    const script = document.createElement('script')
    script.src = '/static/niivue.umd.js'
    script.onload = () => resolve(window.niivue)
    script.onerror = () => reject(new Error('niivue could not be loaded.'))
    document.head.append(script)
  })
  return library
}

export class Planes {
  // moved: is told the slice k that the reader has chosen here.
  constructor (canvas, base, state, moved) {
    Object.assign(this, { canvas, base, state, moved })
  }

  async open (window, colours) {
    const { Niivue, SLICE_TYPE } = await loaded()
    this.view = new Niivue({ dragAndDropEnabled: false, isResizeCanvas: true, trustCalMinMax: true, loadingText: '', multiplanarForceRender: true, crosshairWidth: 0.5, backColor: [0, 0, 0, 1] })
    await this.view.attachToCanvas(this.canvas)
    this.view.setSliceType(SLICE_TYPE.MULTIPLANAR)
    await this.view.loadVolumes([{ url: `${this.base}/volume/ct`, name: 'ct.nii', cal_min: window[0], cal_max: window[1] }])
    this.view.onLocationChange = place => this.chosen(place)
    this.colours = colours
  }

  async showLesions (method) {
    const { view } = this
    if (view.volumes.length > 1) view.removeVolume(view.volumes[1])
    await view.addVolumeFromUrl({ url: `${this.base}/lesions/${method}`, name: 'lesions.nii', opacity: 0.7, interpolation: false })
    view.volumes[1].setColormapLabel(this.colours)
    view.updateGLVolume()
  }

  window (low, high) {
    if (!this.view) return
    Object.assign(this.view.volumes[0], { cal_min: low, cal_max: high })
    this.view.updateGLVolume()
  }

  // place: voxel (i, j, k) of the whole scan.
  goTo (place) {
    if (!this.view || !this.view.volumes.length) return
    const mm = this.state.to_ras.map(row => row[0] * place[0] + row[1] * place[1] + row[2] * place[2] + row[3])
    this.view.scene.crosshairPos = this.view.mm2frac(mm.slice(0, 3))
    this.view.drawScene()
  }

  chosen (place) {
    const [x, y, z] = place.mm
    const row = this.state.from_ras[2]
    this.moved(Math.round(row[0] * x + row[1] * y + row[2] * z + row[3]))
  }
}
