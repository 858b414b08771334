function main() {
  let text = "";
  for (let i = 0; i < 300000; i = i + 1) {
    text = text + "item " + i + ";";
  }
  const parts = text.split(";");
  let long = 0;
  for (const part of parts) {
    if (part.length > 10) long = long + 1;
  }
  console.log(text.length + " " + parts.length + " " + long);
}
main();
