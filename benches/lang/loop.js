function main() {
  let total = 0;
  for (let i = 0; i < 10000000; i = i + 1) {
    total = total + (i % 7);
  }
  console.log(total);
}
main();
