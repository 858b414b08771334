def main():
    values = []
    seed = 42
    for _ in range(1000000):
        seed = (seed * 1103515245 + 12345) % 2147483648
        values.append(seed)
    ordered = sorted(values)
    print(str(ordered[0]) + " " + str(ordered[500000]) + " " + str(ordered[999999]))


main()
