def main():
    text = ""
    for i in range(300000):
        text = text + "item " + str(i) + ";"
    parts = text.split(";")
    long = 0
    for part in parts:
        if len(part) > 10:
            long = long + 1
    print(str(len(text)) + " " + str(len(parts)) + " " + str(long))


main()
