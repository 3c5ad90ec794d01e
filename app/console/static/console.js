// What pages can do better with a script. Without it, all of them work.

const feed = document.querySelector("#feed")

// Live: the page looks again whenever the feed says `changed`, unless it is paused.
if (feed) {
  const status = feed.querySelector("[role=status]")
  const button = feed.querySelector("button")
  let paused = false
  let missed = false
  let lost = false

  const say = () => {
    feed.classList.toggle("lost", lost)
    status.textContent = lost ? "Connection lost, trying again" : paused ? "Paused" : "Live"
  }
  const pause = (value) => {
    paused = value
    button.textContent = paused ? "Resume" : "Pause"
    if (!paused && missed) htmx.trigger(feed, "changed")
    say()
  }
  const connected = (value) => {
    lost = !value
    say()
  }

  // Before htmx hears of it, which listens at the element itself.
  document.addEventListener("changed", (event) => {
    missed = paused
    if (paused) event.stopImmediatePropagation()
  }, true)
  button.addEventListener("click", () => pause(!paused))
  // Whoever has chosen rows, or writes, must not lose sight of them.
  document.addEventListener("change", (event) => {
    if (event.target.matches("[data-choice], [data-choice-all]")) pause(document.querySelector("[data-choice]:checked") !== null)
  })
  feed.addEventListener("htmx:sse:after:connection", (event) => {
    connected(event.detail.connection.status === 200)
    if (lost) htmx.trigger(feed, "changed") // the session has ended: the page is sent to where one signs in
  })
  for (const each of ["error", "close"]) feed.addEventListener(`htmx:sse:${each}`, () => connected(false))
  // One that could not be connected at all is tried again, too.
  setInterval(() => { if (!feed._htmx?.sse) htmx.trigger(feed, "again") }, 10_000)

  feed.hidden = false
  connected(true)
}

// All rows at once.
document.addEventListener("change", (event) => {
  if (!event.target.matches("[data-choice-all]")) return
  for (const each of document.querySelectorAll("[data-choice]")) each.checked = event.target.checked
})

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
