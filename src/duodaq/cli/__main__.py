from duodaq.cli import main

main()
