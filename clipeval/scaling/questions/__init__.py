"""What is asked of fitted laws: which source scales better, what comes next, what a budget buys."""
