"""How well the parameters of a law are known: intervals, and draws for whatever depends on the line."""
