"""What a study costs before it starts: hours, money, when it is done."""
