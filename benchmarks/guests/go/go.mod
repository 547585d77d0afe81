module benchguests

go 1.24
