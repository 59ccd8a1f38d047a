def report_study(done, command):
    return done.table.groupby(["condition","seed"]).size().to_string()
