"use strict";

const root = document.documentElement;
const wide = matchMedia("(min-width: 1000px)");

// Before the page is drawn, so that the dock doesn't jump.
root.dataset.dock = wide.matches ? (localStorage.getItem("dock") ?? "open") : "closed";

function setDock(state) {
  root.dataset.dock = state;

  if (wide.matches) localStorage.setItem("dock", state);
}

async function send(form, button) {
  const response = await fetch(form.action, {
    method: "POST",
    body: new FormData(form, button),
    headers: { Accept: "application/json" },
  });
  return response.json();
}

async function addToCart(event) {
  event.preventDefault();
  const button = event.submitter;
  const label = button.textContent;
  const { count } = await send(event.target, button);
  document.getElementById("count").textContent = count;
  button.textContent = "Added";
  button.classList.add("done");
  setTimeout(() => {
    button.textContent = label;
    button.classList.remove("done");
  }, 1200);
}

async function happenOutside(event) {
  event.preventDefault();
  const form = event.target;
  const button = event.submitter;
  button.disabled = true;
  const { news } = await send(form, button);
  button.disabled = false;
  tell(news);

  // What is paid can't be paid again.
  if (form.closest("main")) form.remove();
}

// In the dock, where it stays; if that is closed, below the page for a while.
function tell(news) {
  const [below, inDock] = document.querySelectorAll(".news, .happened");
  below.textContent = inDock.textContent = news;
  clearTimeout(tell.timer);
  tell.timer = setTimeout(() => (below.textContent = ""), 12_000);
}

addEventListener("DOMContentLoaded", () => {
  for (const form of document.querySelectorAll("form.add"))
    form.addEventListener("submit", addToCart);

  for (const form of document.querySelectorAll("form.outside"))
    form.addEventListener("submit", happenOutside);

  for (const link of document.querySelectorAll("[data-news]"))
    link.addEventListener("click", () => tell(link.dataset.news));

  document.getElementById("open-dock").onclick = () => setDock("open");
  document.getElementById("close-dock").onclick = () => setDock("closed");
});

addEventListener("load", () => {
  const notice = document.getElementById("no-library");

  if (notice) notice.hidden = Boolean(window.mixpanel?.__loaded);
});
