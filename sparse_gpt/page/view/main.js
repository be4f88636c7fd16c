// Starts the page that carries this script.

import { failed, mount } from "./mount.js";

const packed = document.getElementById("packed");
mount(document.body, packed.textContent).catch((error) => failed(document.body, String(error.message ?? error)));
packed.remove(); // its text is not needed again
