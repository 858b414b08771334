function main() {
  const values = [];
  let seed = 42;
  for (let i = 0; i < 1000000; i = i + 1) {
    // 31-bit products of this generator need more than 53 bits: split the multiplication.
    const high = (seed >>> 16) * 1103515245;
    const low = (seed & 65535) * 1103515245;
    seed = (((high % 32768) * 65536) + low + 12345) % 2147483648;
    values.push(seed);
  }
  values.sort((a, b) => a - b);
  console.log(values[0] + " " + values[500000] + " " + values[999999]);
}
main();
