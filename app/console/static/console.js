// What pages can do better with a script. Without it, all of them work.

// On a narrow screen the navigation is wider than what is seen of it.
for (const each of document.querySelectorAll(".top [aria-current]")) each.scrollIntoView({ inline: "center", block: "nearest" })

// All rows at once.
document.addEventListener("change", (event) => {
  if (!event.target.matches("[data-choice-all]")) return
  for (const each of document.querySelectorAll("[data-choice]")) each.checked = event.target.checked
})

const feed = document.querySelector("#feed")
const LIVE = "Live"
const LOST = "Connection lost, trying again"

// Live: the page looks again whenever the feed says `changed`, unless it is paused.
if (feed) {
  const status = feed.querySelector("[role=status]")
  const button = feed.querySelector("button")
  let paused = false // by the button
  let chosen = false // rows are, of which nobody must lose sight
  let missed = false
  let connection = "Connecting"
  let failed = false

  const say = () => {
    feed.classList.toggle("lost", connection === LOST)
    feed.classList.toggle("rests", rests())
    status.textContent = connection !== LIVE ? connection : rests() ? "Paused" : LIVE
  }
  const rests = () => paused || chosen
  const update = () => {
    button.textContent = rests() ? "Resume" : "Pause"
    if (!rests() && missed) htmx.trigger(feed, "changed")
    missed = rests() && missed
    say()
  }
  const connected = (value) => {
    connection = value ? LIVE : LOST
    say()
  }

  // Before htmx hears of it, which listens at the element itself.
  for (const each of ["changed", "beat"]) document.addEventListener(each, (event) => {
    if (!rests()) return
    missed = true
    event.stopImmediatePropagation()
  }, true)
  // What was asked for before.
  document.addEventListener("htmx:before:swap", (event) => {
    if (!rests() || event.target.id !== "content") return
    missed = true
    event.preventDefault()
  })
  button.addEventListener("click", () => {
    paused = !rests()
    chosen = false
    update()
  })
  document.addEventListener("change", (event) => {
    if (!event.target.matches("[data-choice], [data-choice-all]")) return
    chosen = document.querySelector("[data-choice]:checked") !== null
    update()
  })
  feed.addEventListener("htmx:sse:after:connection", (event) => {
    connected(event.detail.connection.status === 200)
    if (connection === LOST) htmx.trigger(feed, "changed") // the session has ended: the page is sent to where one signs in
  })
  for (const each of ["error", "close"]) feed.addEventListener(`htmx:sse:${each}`, () => connected(false))
  // What a look has failed to bring is brought by the next one.
  document.addEventListener("htmx:error", () => { failed = true })
  feed.addEventListener("beat", () => {
    if (failed) htmx.trigger(feed, "changed")
    failed = false
  })
  // One that could not be connected at all is tried again, too.
  setInterval(() => { if (!feed._htmx?.sse) htmx.trigger(feed, "again") }, 10_000)

  feed.hidden = false
  say()
}

// Copying, with and without HTTPS.
document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]")
  if (!button) return
  const source = document.getElementById(button.dataset.copy)
  const copied = await copy(source.textContent.trim())
  const said = button.firstChild // what it copies may follow, for screen readers
  said.data = copied ? "Copied" : "Not copied"
  setTimeout(() => { said.data = "Copy" }, 2000)
})

const copy = async (text) => {
  try {
    await navigator.clipboard.writeText(text)
    return true
  } catch {
    const area = Object.assign(document.createElement("textarea"), { value: text, className: "hidden" })
    document.body.append(area)
    area.select()
    const done = document.execCommand("copy")
    area.remove()
    return done
  }
}

// What a page that looked again brings along is hidden, too.
const reveal = () => { for (const each of document.querySelectorAll("[data-scripted]")) each.hidden = false }
document.addEventListener("htmx:after:swap", reveal)
reveal()

// A form that somebody has begun to fill in stays as it is.
document.addEventListener("input", (event) => event.target.form?.setAttribute("hx-morph-skip", ""))
