// Better with it, works without it: parts marked data-live are fetched anew every data-live seconds, as long as the
// server marks them so; a select or checkbox marked data-submit sends its form when it changes.
"use strict";

async function refresh(part) {
  let wait = Number(part.dataset.live);
  while (wait > 0) {
    await new Promise((done) => setTimeout(done, 1000 * wait));
    if (document.hidden || part.contains(document.activeElement) && document.activeElement.matches("input,select,textarea")) continue;
    let answer;
    try {
      answer = await fetch(location.href, { headers: { Accept: "text/html" } });
    } catch {
      part.classList.add("stale");
      continue;
    }
    if (!answer.ok || answer.redirected) { part.classList.add("stale"); continue; }
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById(part.id);
    if (!fresh) return;
    const open = [...part.querySelectorAll("details[open][id]")].map((each) => each.id);
    part.replaceWith(fresh);
    part = fresh;
    for (const id of open) part.querySelector(`details[id="${CSS.escape(id)}"]`)?.setAttribute("open", "");
    wait = Number(part.dataset.live);
  }
}

for (const part of document.querySelectorAll("[data-live][id]")) refresh(part);
document.addEventListener("change", (event) => {
  if (event.target.matches("[data-submit]")) event.target.form.requestSubmit();
});
