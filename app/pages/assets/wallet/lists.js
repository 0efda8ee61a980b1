// Lists of the page whose items stay the same elements, whatever changes around them.

// Returns a copy of what a template holds.
export function copyOf(template) {
  return template.content.firstElementChild.cloneNode(true);
}

// Makes `wanted` the items of a list, in this order.
export function arrange(list, wanted) {
  const kept = new Set(wanted);
  for (const item of [...list.children]) {
    if (!kept.has(item)) item.remove();
  }
  // Moving an item would take the focus off it, so what is in place stays.
  let there = list.firstElementChild;
  for (const item of kept) {
    if (item === there) there = there.nextElementSibling;
    else list.insertBefore(item, there);
  }
}
