def main():
    pieces = []
    for i in range(300000):
        pieces.append("item " + str(i) + ";")
    text = "".join(pieces)
    parts = text.split(";")
    long = 0
    for part in parts:
        if len(part) > 10:
            long = long + 1
    print(str(len(text)) + " " + str(len(parts)) + " " + str(long))


main()
