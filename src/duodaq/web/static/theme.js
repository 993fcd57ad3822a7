// Before anything is drawn: the theme that was chosen here, else the system's.
try {
  const chosen = localStorage.getItem("duodaq-theme");
  if (chosen) document.documentElement.dataset.theme = chosen;
} catch {
  // a browser that keeps nothing follows the system
}
